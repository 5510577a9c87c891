"""Characters → tokens, estimated: at the rate of a source's own stream where there is one, else at a usual one."""

from __future__ import annotations

from collections.abc import Sequence

from dataproc.dedup.reached import Source
from manifest.record import Model

CHARACTERS_PER_TOKEN = 4.0
"""Of the tokenizers in use, on English."""


class TokenRate(Model):
    """measured: on the source's stream of tokens; else assumed."""

    characters_per_token: float
    measured: bool

    def tokens(self, characters: int) -> int:
        return round(characters / self.characters_per_token)


def token_rates(sources: Sequence[Source], characters: Sequence[int]) -> dict[str, TokenRate]:
    """The rate of each source. characters: of all its documents, whose bytes are known from their manifests.

    A stream has the tokens of some bytes, those that were kept, so this takes the bytes per character of all for those
    of the kept ones.
    """
    found: dict[str, TokenRate] = {}
    for source, count in zip(sources, characters, strict=True):
        rate, measured = CHARACTERS_PER_TOKEN, False
        if source.tokens_per_byte and count:
            rate, measured = count / source.documents.summary["text_bytes"] / source.tokens_per_byte, True
        found[source.name] = TokenRate(characters_per_token=round(rate, 6), measured=measured)
    return found
