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

from dataproc.native import Native

_may_repeat = Native("dataproc.kernels.repeats", "may_repeat")
_may_be_among = Native("dataproc.kernels.repeats", "may_be_among")

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
    shift = _shift(len(keys))
    perhaps = np.empty(len(keys), np.uint8)
    _may_repeat(keys, shift, _table(shift), _table(shift), perhaps)
    return perhaps.view(np.bool_)


def is_among(keys: NDArray[np.uint64], known: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Which keys are among the known ones, of which there are few."""
    shift = _shift(len(known))
    perhaps = np.empty(len(keys), np.uint8)
    _may_be_among(keys, known, shift, _table(shift), perhaps)
    found = perhaps.view(np.bool_)
    found[found] = np.isin(keys[found], known)
    return found


def _shift(keys: int) -> int:
    """What leaves of a key so many high bits that a table of their size has BITS_PER_KEY bits per key."""
    return 64 - max(6, (max(1, keys) * BITS_PER_KEY - 1).bit_length())


def _table(shift: int) -> NDArray[np.uint64]:
    """As many bits as there are keys after a shift, all 0."""
    return np.zeros(1 << (58 - shift), np.uint64)
