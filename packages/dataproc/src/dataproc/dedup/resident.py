"""Shingle sets that lie in a mapped file → how many hashes two share, while little of the file stays resident.

What a process reads of a mapped file counts as its memory until the system takes it away, which it does late. Here the
process gives it back itself, whenever it has looked at about RESIDENT hashes: the pages stay in the system's cache, so
to look again costs a fault and no reading. `looked_at` counts, in a place of its own (an array of one); it is empty
where hashes are in memory, which is never given back, or so few that they may stay (`counter`).
"""

from __future__ import annotations

import numpy as np
from numba import types

from dataproc.dedup.jaccard import shared_count
from dataproc.dedup.kernel import I64, U64, kernel

RESIDENT = 1 << 25  # 256 MB
_STEP = 1 << 21  # of a set, at a time
_FAULT = 1 << 12  # a fault makes up to 64 KB resident, 32 KB on average
_PAGE = 1 << 16  # pages of any system begin at multiples of it, or of less
_DONTNEED = 4  # MADV_DONTNEED, of Linux and of macOS

_madvise = types.ExternalFunction("madvise", types.intc(types.uintp, types.uintp, types.intc))


def counter(hashes: U64) -> I64:
    """`looked_at` for a file of hashes that has just been mapped to be read."""
    return np.zeros(1 if len(hashes) > RESIDENT else 0, np.int64)


@kernel
def shared_of(hashes: U64, a: int, size_a: int, b: int, size_b: int, looked_at: I64) -> int:
    """`shared_count` of hashes[a : a + size_a] and hashes[b : b + size_b]."""
    end_a, end_b = a + size_a, b + size_b
    shared = 0
    while a < end_a and b < end_b:
        to_a, to_b = min(a + _STEP, end_a), min(b + _STEP, end_b)
        if hashes[to_a - 1] < hashes[to_b - 1]:
            to_b = b + np.searchsorted(hashes[b:to_b], hashes[to_a - 1], side="right")
        else:
            to_a = a + np.searchsorted(hashes[a:to_a], hashes[to_b - 1], side="right")
        shared += shared_count(hashes[a:to_a], hashes[b:to_b])
        if len(looked_at):
            looked_at[0] += max(to_a - a, _FAULT) + max(to_b - b, _FAULT)
            if looked_at[0] > RESIDENT:
                _give_back(hashes)
                looked_at[0] = 0
        a, b = to_a, to_b
    return shared


@kernel
def _give_back(hashes: U64) -> None:
    """Of a file that is mapped to be read, so nothing is lost."""
    address = hashes.ctypes.data
    first = (address + _PAGE - 1) // _PAGE * _PAGE
    size = address + 8 * len(hashes) - first
    if size > 0:
        _madvise(first, size, _DONTNEED)
