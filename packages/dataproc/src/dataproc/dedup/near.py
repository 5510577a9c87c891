"""Texts against known texts → the pairs that share a band key and have an exact Jaccard index of the threshold or more.

What is known may lie in memory (stones.py) or on disk (index/known.py). Pairs are settled as in a build: a sketch that
errs in fewer than one of 10⁹ cases sets aside what is far below the threshold, the exact index decides all others.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from dataproc.dedup.band_keys import band_keys
from dataproc.dedup.group import Matching
from dataproc.dedup.jaccard import exact, sketch_bounds
from dataproc.dedup.minhash import is_signed
from dataproc.dedup.shingles import ShingleSets, Shingling, shingle_sets
from dataproc.documents import rows_at

QUERIES = 512  # at a time: with 21 buckets of 4,096 each that is 44 M pairs before repeats are dropped
PAIRS = 65_536  # whose signatures are compared at a time
SETS = 4096  # of known texts that are held at a time

I64 = NDArray[np.int64]
SetsOf = Callable[[I64], ShingleSets]
"""Rows → the shingle set of each."""


class Near(NamedTuple):
    """Pairs in order of (query, text). cut: hot buckets of which only a part was compared."""

    query: I64
    text: I64
    jaccard: NDArray[np.float64]
    cut: int


class Known(Protocol):
    """Texts by number, with what decides about them."""

    def candidates(self, keys_NB: NDArray[np.uint64]) -> tuple[I64, I64, int]:
        """(rows of `keys_NB`, texts that share a key with the row, hot buckets that were cut); pairs may repeat."""

    def minima(self, texts: I64) -> NDArray[np.uint32]:
        """The signatures of some texts."""

    def shingle_sets(self, texts: I64) -> ShingleSets:
        """The shingle sets of some texts."""


def near(known: Known, matching: Matching, minima_ND: NDArray[np.uint32], sets_of: SetsOf) -> Near:
    """The known texts that each query is near to. Queries without a shingle are near to none.

    sets_of: rows of `minima_ND`, ascending → their shingle sets; it is asked for those of some candidate only.
    """
    signed = np.flatnonzero(is_signed(minima_ND))
    parts = [
        _of_some(known, matching, minima_ND, signed[i : i + QUERIES], sets_of) for i in range(0, len(signed), QUERIES)
    ]
    if not parts:
        return Near(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0), 0)
    query, text, jaccard = (np.concatenate(column) for column in zip(*(part[:3] for part in parts), strict=True))
    return Near(query, text, jaccard, sum(part.cut for part in parts))


def _of_some(known: Known, matching: Matching, minima_ND: NDArray[np.uint32], rows: I64, sets_of: SetsOf) -> Near:
    row, text, cut = known.candidates(band_keys(minima_ND[rows], matching.bands))
    texts = int(text.max(initial=0)) + 1
    pair = np.unique(row * texts + text)
    pairs = np.stack([rows[pair // texts], pair % texts], axis=1)
    pairs = pairs[_may_be_near(known, matching, minima_ND, pairs)]
    queries, query_of = np.unique(pairs[:, 0], return_inverse=True)
    jaccard = _exact(known, sets_of(queries) if len(queries) else None, query_of, pairs[:, 1])
    found = jaccard >= matching.threshold
    return Near(pairs[found, 0], pairs[found, 1], jaccard[found], cut)


def _may_be_near(known: Known, matching: Matching, minima_ND: NDArray[np.uint32], pairs: I64) -> NDArray[np.bool_]:
    """Which pairs the sketch does not reject."""
    reject_at = sketch_bounds(matching.threshold, matching.permutations).reject_at
    texts, text_of = np.unique(pairs[:, 1], return_inverse=True)
    theirs_TD = known.minima(texts)
    equal = [np.zeros(0, np.int64)]
    for start in range(0, len(pairs), PAIRS):
        some = slice(start, start + PAIRS)
        equal.append((minima_ND[pairs[some, 0]] == theirs_TD[text_of[some]]).sum(axis=1))
    return np.concatenate(equal) > reject_at


def _exact(known: Known, sets: ShingleSets | None, query_of: I64, texts: I64) -> NDArray[np.float64]:
    """The Jaccard index of each pair. sets: of the queries, which `query_of` numbers."""
    jaccard = np.zeros(len(texts))
    distinct, text_of = np.unique(texts, return_inverse=True)
    for start in range(0, len(distinct), SETS):
        assert sets is not None
        theirs = known.shingle_sets(distinct[start : start + SETS])
        for pair in np.flatnonzero((text_of >= start) & (text_of < start + SETS)):
            jaccard[pair] = exact(sets.of(query_of[pair]), theirs.of(text_of[pair] - start))
    return jaccard


def sets_of_rows(documents: Path, rows: I64, shingling: Shingling) -> SetsOf:
    """The shingle sets of some of the `rows` of a shard of documents, by their place in `rows`."""

    def sets_of(places: I64) -> ShingleSets:
        return shingle_sets(rows_at(documents, rows[places], ["text"])["text"], shingling)

    return sets_of
