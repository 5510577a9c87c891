"""Auxiliary embeddings out of the mixture itself: a token is known by the tokens that stand near it.

    tokens (sample) ─► counts of (token, frequent token at most WINDOW away) ─► positive pointwise mutual information

    x[v, c] = max(0, ln(n(v, c) · N / (n(v) · n(c))))      (V, CONTEXTS); rows of zeros for tokens that are not there

Documents lie in order of the hashes of their ids, so the first tokens of a stream are a sample of it.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from manifest.artifact import Opened, open_streams
from manifest.mixture import Mixture

SAMPLE_TOKENS = 8_000_000
"""Of all streams together, each by its share."""
CONTEXTS = 512
"""The most frequent tokens."""
WINDOW = 4
CHUNK = 1 << 20

Ids = npt.NDArray[np.int64]


def vectors(mixture: Opened) -> npt.NDArray[np.float32]:
    """(V, CONTEXTS), in a row's order of the mixture's token ids. The same mixture gives the same."""
    record = mixture.manifest
    assert isinstance(record, Mixture)
    size = record.tokenizer.vocab_size
    chunks = list(_sample(mixture))
    frequency = sum((np.bincount(chunk, minlength=size) for chunk in chunks), np.zeros(size, np.int64))
    by_rank = np.argsort(-frequency, kind="stable")[:CONTEXTS]
    column = np.full(size, -1, np.int64)
    column[by_rank] = np.arange(len(by_rank))
    counts = np.zeros((size, len(by_rank)), np.float32)
    for chunk in chunks:
        _count(chunk, column, counts)
    return _information(counts)


def _sample(mixture: Opened) -> Iterator[Ids]:
    record = mixture.manifest
    assert isinstance(record, Mixture)
    total = sum(stream.tokens for stream in record.streams.values())
    for name, stream in sorted(open_streams(mixture).items()):
        wanted = min(stream.tokens, -(-record.streams[name].tokens * SAMPLE_TOKENS // total))
        for first in range(0, wanted, CHUNK):
            yield np.asarray(stream.read(first, min(CHUNK, wanted - first)), np.int64)


def _count(chunk: Ids, column: Ids, counts: npt.NDArray[np.float32]) -> None:
    width = counts.shape[1]
    for distance in range(1, WINDOW + 1):
        for token, near in ((chunk[:-distance], chunk[distance:]), (chunk[distance:], chunk[:-distance])):
            known = column[near] >= 0
            places, times = np.unique(token[known] * width + column[near[known]], return_counts=True)
            counts.reshape(-1)[places] += times.astype(np.float32)


def _information(counts: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """In place: the counts are the largest thing here."""
    of_token = counts.sum(1, dtype=np.float64)
    of_context = counts.sum(0, dtype=np.float64)
    total = of_token.sum()
    with np.errstate(divide="ignore", invalid="ignore"):
        counts *= (total / of_token[:, None]).astype(np.float32)
        counts /= of_context[None, :].astype(np.float32)
        np.log(counts, out=counts)
    np.nan_to_num(counts, copy=False, nan=0.0, neginf=0.0, posinf=0.0)
    np.maximum(counts, 0.0, out=counts)
    return counts
