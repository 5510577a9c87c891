"""`added.json`, beside the tokenizer.json of a tokenizer that was extended: its new tokens, and what they were before.

It is what a model needs whose embeddings grow with its vocabulary: a new row may begin as the mean of its pieces'.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from manifest.identity import digest_of
from manifest.record import Model

ADDED = "added.json"


class NewToken(Model):
    """A new token: how the vocabulary writes it, the base's ids that stood for it, and how often the text that it was
    learned from uses it once all are there. 0: others took its place, and it never fires there.
    """

    id: int = Field(ge=0)
    token: str
    pieces: tuple[int, ...] = Field(min_length=1)
    count: int = Field(ge=0)


class GivenUp(Model):
    """A token of the base that a new one has replaced, and how often the sample of all sources had used it."""

    id: int = Field(ge=0)
    token: str
    count: int = Field(ge=0)


class Added(Model):
    """base_size: one more than the base's largest id. base: digest of its vocabulary (`vocabulary_digest`).

    tokens: in the order of their merges, so that the first N are an extension by N. replaced: empty where the
    vocabulary grew.
    """

    version: Literal[1] = 1
    base_size: int = Field(gt=0)
    base: str
    scripts: tuple[str, ...]
    tokens: tuple[NewToken, ...]
    replaced: tuple[GivenUp, ...] = ()

    @property
    def silent(self) -> int:
        """New tokens that never fire on the text that they were learned from."""
        return sum(token.count == 0 for token in self.tokens)


def vocabulary_digest(vocabulary: Mapping[str, int]) -> str:
    """Of a tokenizer's tokens and their ids, added ones included."""
    return digest_of(dict(vocabulary))
