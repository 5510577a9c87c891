"""Band keys → buckets: the documents that share a key.

In: rows (key u64, doc i64). Out, for the keys that come twice or more, in order of key:

    members   i64              documents, bucket after bucket, ascending within each
    bounds    i64, buckets + 1 members[bounds[b] : bounds[b + 1]] are those of bucket b

Most keys of a corpus come once. A pass over a small bit table finds nearly all of these, so that only the others are
sorted.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dataproc.dedup.kernel import kernel

BITS_PER_KEY = 8  # a key that comes once is sorted in vain with a chance of about one in so many


class Buckets(NamedTuple):
    """See the module's docstring."""

    members: NDArray[np.int64]
    bounds: NDArray[np.int64]

    @property
    def sizes(self) -> NDArray[np.int64]:
        return np.diff(self.bounds)


def buckets(keys: NDArray[np.uint64], docs: NDArray[np.int64]) -> Buckets:
    """The buckets of two or more documents. A document comes at most once with a key."""
    assert len(keys) == len(docs)
    perhaps = may_repeat(keys)
    keys, docs = keys[perhaps], docs[perhaps]
    order = np.lexsort((docs, keys))
    ordered = keys[order]
    starts = np.flatnonzero(np.concatenate([np.ones(min(1, len(keys)), np.bool_), ordered[1:] != ordered[:-1]]))
    sizes = np.diff(starts, append=len(keys))
    members = docs[order][np.repeat(sizes > 1, sizes)]
    return Buckets(members, np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes[sizes > 1])]))


def may_repeat(keys: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Which keys may come twice or more: all that do, and a few others."""
    return _may_repeat(keys, _shift(len(keys)))


def is_among(keys: NDArray[np.uint64], known: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Which keys are among the known ones, of which there are few."""
    found = _may_be_among(keys, known, _shift(len(known)))
    found[found] = np.isin(keys[found], known)
    return found


def _shift(keys: int) -> np.uint64:
    """What leaves of a key so many high bits that a table of their size has BITS_PER_KEY bits per key."""
    return np.uint64(64 - max(6, (max(1, keys) * BITS_PER_KEY - 1).bit_length()))


@kernel
def _may_repeat(keys: NDArray[np.uint64], shift: np.uint64) -> NDArray[np.bool_]:
    """Which keys may come twice: their high bits do."""
    words = 1 << (58 - np.int64(shift))
    once, twice = np.zeros(words, np.uint64), np.zeros(words, np.uint64)
    for key in keys:
        slot = key >> shift
        word, bit = slot >> np.uint64(6), np.uint64(1) << (slot & np.uint64(63))
        twice[word] |= once[word] & bit
        once[word] |= bit
    perhaps = np.empty(len(keys), np.bool_)
    for row in range(len(keys)):
        slot = keys[row] >> shift
        perhaps[row] = (twice[slot >> np.uint64(6)] >> (slot & np.uint64(63))) & np.uint64(1)
    return perhaps


@kernel
def _may_be_among(keys: NDArray[np.uint64], known: NDArray[np.uint64], shift: np.uint64) -> NDArray[np.bool_]:
    """Which keys have the high bits of a known one."""
    table = np.zeros(1 << (58 - np.int64(shift)), np.uint64)
    for key in known:
        slot = key >> shift
        table[slot >> np.uint64(6)] |= np.uint64(1) << (slot & np.uint64(63))
    perhaps = np.empty(len(keys), np.bool_)
    for row in range(len(keys)):
        slot = keys[row] >> shift
        perhaps[row] = (table[slot >> np.uint64(6)] >> (slot & np.uint64(63))) & np.uint64(1)
    return perhaps
