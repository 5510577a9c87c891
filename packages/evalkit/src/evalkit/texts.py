"""A held-out artifact → windows of its long documents, for losses by position.

    document        e  t₁ t₂ t₃ t₄ t₅ t₆ t₇ t₈      e: end_of_text, as the document before it ended in training
    windows of 4    e  t₁ t₂ t₃
                                t₄ t₅ t₆ t₇         whole ones only: t₈ is left out

A window lies within one document, so what it begins with stands before what it ends with. Documents shorter than
a window are left out altogether: every position is measured on the same documents, and none on short ones alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dataproc.vocab.files import load
from evalkit import heldout
from evalkit.checkpoint import Subject
from manifest.errors import WrongArtifact
from manifest.identity import hash64


@dataclass(frozen=True)
class Texts:
    """tokens: (W, T), of W windows. document: (W,), the number of each one's document, from 0, in order.

    sources: how many documents each source has among them.
    """

    tokens: npt.NDArray[np.int64]
    document: npt.NDArray[np.int64]
    sources: dict[str, int]

    @property
    def documents(self) -> int:
        return sum(self.sources.values())


def long_texts(subject: Subject, length: int, *, limit: int | None, windows: int) -> Texts:
    """Windows of `length` tokens of the held-out documents that have so many, the first `windows` of each.

    limit: documents per source, at most: those with the smallest hash of their id.

    Raises WrongArtifact if no document is long enough.
    """
    sizes = heldout.choose(subject.heldout, None)
    encoder = load(subject.tokenizer.directory)
    end = subject.mixture_record.tokenizer.end_of_text
    longest = 0
    found: dict[str, list[tuple[int, list[int]]]] = {}
    for document in heldout.documents(subject.heldout, sizes):
        sequence = [end, *encoder.encode(document.text, add_special_tokens=False).ids]
        longest = max(longest, len(sequence))
        if len(sequence) >= length:
            key = hash64(document.id)
            found.setdefault(document.source, []).append((key, sequence[: length * windows]))
    if not found:
        raise WrongArtifact(
            f"{subject.heldout.uri} has no document of {length:,} tokens; the longest of its {len(sizes):,} has "
            f"{longest:,} with the end-of-text before it. Give --lengths up to that, or raise `holdout.fraction` in "
            "the data recipe, build the mixture again and train on it"
        )
    chosen = {source: [sequence for _, sequence in sorted(pairs)[:limit]] for source, pairs in sorted(found.items())}
    return _cut([s for sequences in chosen.values() for s in sequences], length, {n: len(c) for n, c in chosen.items()})


def _cut(sequences: list[list[int]], length: int, sources: dict[str, int]) -> Texts:
    numbered = [
        (number, sequence[first : first + length])
        for number, sequence in enumerate(sequences)
        for first in range(0, len(sequence) - length + 1, length)
    ]
    return Texts(
        np.array([window for _, window in numbered], dtype=np.int64),
        np.array([number for number, _ in numbered], dtype=np.int64),
        sources,
    )
