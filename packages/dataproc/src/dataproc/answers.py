"""Documents with answers → tokens, and which of them are learned: the answers, and what ends them.

A prompt and its answer are encoded apart, so the tokens of the prompt are those that it has when a model is asked.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from tokenizers import Tokenizer

from dataproc.templates import LONG_PROMPT, Piece, Template, render
from dataproc.turns import dialogues

BATCH_CHARACTERS = 4_000_000
NOTHING = "(?!)"
BEGINS = ("<s>", "<|begin_of_text|>", "<bos>")

Run = tuple[str | int, bool]
"""A string that is encoded at once, or a token; and whether it is learned."""
Masked = tuple[NDArray[np.int64], NDArray[np.bool_]]


@dataclass(frozen=True)
class Counts:
    """Tokens that are learned, and documents of which the first prompt has more than LONG_PROMPT tokens."""

    learned: int = 0
    long_prompts: int = 0

    def with_document(self, learned: NDArray[np.bool_]) -> Counts:
        return Counts(self.learned + int(learned.sum()), self.long_prompts + bool(learned.argmax() > LONG_PROMPT))


@dataclass(frozen=True)
class Encoder:
    """A tokenizer that takes what is said for text, whatever it spells; it has `encode_special_tokens` set.

    end: the token that closes a document.
    """

    tokenizer: Tokenizer
    template: Template
    end: int

    @cached_property
    def start(self) -> int | None:
        found = (self.tokenizer.token_to_id(name) for name in BEGINS)
        return next((token for token in found if token is not None), None)

    @cached_property
    def _special(self) -> re.Pattern[str]:
        """What in a template's own words is a special token."""
        names = [token.content for token in self.tokenizer.get_added_tokens_decoder().values() if token.special]
        either = "|".join(map(re.escape, sorted(names, key=len, reverse=True)))
        return re.compile(f"({either})" if names else NOTHING)

    def encode(self, documents: Sequence[Sequence[Piece]]) -> Iterator[Masked]:
        """The tokens of each document and whether they are learned, end-of-text last. Two arrays of one shape."""
        runs = [self._runs(pieces) for pieces in documents]
        texts = [part for document in runs for part, _ in document if isinstance(part, str)]
        encoded = iter(self.tokenizer.encode_batch_fast(texts, add_special_tokens=False))
        for document in runs:
            tokens = [[part] if isinstance(part, int) else next(encoded).ids for part, _ in document]
            learned = np.repeat([learned for _, learned in document], [len(run) for run in tokens])
            yield np.concatenate(tokens).astype(np.int64), learned

    def _runs(self, pieces: Sequence[Piece]) -> list[Run]:
        runs: list[Run] = []
        for part, learned in self._parts(pieces):
            before = runs[-1] if runs else (self.end, False)
            if isinstance(part, str) and isinstance(before[0], str) and before[1] == learned:
                runs[-1] = (before[0] + part, learned)
            elif part != "":
                runs.append((part, learned))
        return runs if runs[-1] == (self.end, True) else [*runs, (self.end, True)]

    def _parts(self, pieces: Sequence[Piece]) -> Iterator[Run]:
        for text, kind, learned in pieces:
            if kind == "end":
                yield self.end, learned
            elif kind == "start":
                if self.start is not None:
                    yield self.start, learned
            elif kind == "said":
                yield text, learned
            else:
                for part in self._special.split(text):
                    token = self.tokenizer.token_to_id(part) if self._special.fullmatch(part) else None
                    yield (part if token is None else token), learned


def encoded(documents: Iterable[pa.RecordBatch], encoder: Encoder) -> Iterator[tuple[list[str], list[Masked]]]:
    """Documents (id, text, and what of it is an answer), some at a time: their ids, and the tokens of each."""
    for ids, pieces in _batches(documents, encoder.template):
        yield ids, list(encoder.encode(pieces))


def _batches(documents: Iterable[pa.RecordBatch], template: Template) -> Iterator[tuple[list[str], list[list[Piece]]]]:
    ids: list[str] = []
    pieces: list[list[Piece]] = []
    size = 0
    for batch in documents:
        for identifier, turns in zip(batch["id"].to_pylist(), dialogues(batch), strict=True):
            ids.append(identifier)
            pieces.append(list(render(template, turns)))
            size += sum(len(piece.text) for piece in pieces[-1])
            if size >= BATCH_CHARACTERS:
                yield ids, pieces
                ids, pieces, size = [], [], 0
    if ids:
        yield ids, pieces
