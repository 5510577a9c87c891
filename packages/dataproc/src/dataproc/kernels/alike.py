"""How many hashes two sets share, and how many minima two signatures (jaccard.py); sets may lie in a mapped file, of
which little stays resident (resident.py).
"""

import numpy as np
from numba import types

from dataproc.kernels.build import part
from dataproc.kernels.scratch import RESIDENT
from dataproc.kernels.vectors import matches
from dataproc.native import I64, U32, U64

_STEP = 1 << 21  # of a set, at a time
_FAULT = 1 << 12  # hashes: a fault makes up to 64 KB resident, which are more than were asked for
_PAGE = 1 << 16  # pages of any system begin at multiples of it, or of less
_DONTNEED = 4  # MADV_DONTNEED, of Linux and of macOS

_madvise = types.ExternalFunction("madvise", types.intc(types.uintp, types.uintp, types.intc))


def shared(a: U64, b: U64) -> int:
    """The size of the intersection of two sets."""
    return int(_shared(a, 0, len(a), b, 0, len(b), 0))


def shared_each(hashes: U64, starts: I64, sizes: I64, looked_at: I64, pairs: I64, found: I64) -> int:
    """found[p]: what the sets pairs[2p] and pairs[2p + 1] share."""
    for pair in range(len(found)):
        a, b = pairs[2 * pair], pairs[2 * pair + 1]
        look_at_pair(looked_at)
        found[pair] = shared_of(hashes, starts[a], sizes[a], starts[b], sizes[b], looked_at, 0)
    return 0


@part
def equal_minima(signatures: U32, permutations: int, a: int, b: int) -> int:
    """Of rows a and b of signatures (N, permutations), flat."""
    equal, from_a, from_b = 0, a * permutations, b * permutations
    for k in range(permutations):
        equal += signatures[from_a + k] == signatures[from_b + k]
    return equal


@part
def shared_of(hashes: U64, a: int, size_a: int, b: int, size_b: int, looked_at: I64, needed: int) -> int:
    """What hashes[a : a + size_a] and hashes[b : b + size_b] share, a step at a time. It ends with a smaller number as
    soon as the sets cannot share as many as are needed any more.
    """
    end_a, end_b = a + size_a, b + size_b
    total = 0
    while a < end_a and b < end_b and total + min(end_a - a, end_b - b) >= needed:
        to_a, to_b = min(a + _STEP, end_a), min(b + _STEP, end_b)
        if hashes[to_a - 1] < hashes[to_b - 1]:
            to_b = beyond(hashes, b, to_b, hashes[to_a - 1])
        else:
            to_a = beyond(hashes, a, to_a, hashes[to_b - 1])
        later = min(end_a - to_a, end_b - to_b)
        total += _shared(hashes, a, to_a, hashes, b, to_b, needed - total - later)
        if len(looked_at):
            looked_at[0] += to_a - a + to_b - b
            if looked_at[0] > RESIDENT:
                _give_back(hashes)
                looked_at[0] = 0
        a, b = to_a, to_b
    return total


@part
def look_at_pair(looked_at: I64) -> None:
    """Counts what comes into memory around the hashes of two sets, however few of them are looked at."""
    if len(looked_at):
        looked_at[0] += 2 * _FAULT


@part
def beyond(hashes: U64, low: int, high: int, value: np.uint64) -> int:
    """Where, of ascending hashes from `low` to before `high`, those begin that are larger than a value."""
    while low < high:
        middle = (low + high) // 2
        if hashes[middle] <= value:
            low = middle + 1
        else:
            high = middle
    return low


@part
def _shared(a: U64, i: int, end_a: int, b: U64, j: int, end_b: int, needed: int) -> int:
    """By merging: eight by eight while there are as many, then one by one. Whichever eight end first are done with:
    free of branches, because which they are is a coin's toss. Fewer than are needed may be too few.
    """
    total = 0
    while i + 8 <= end_a and j + 8 <= end_b and total + min(end_a - i, end_b - j) >= needed:
        total += matches(a, i, b, j)
        x, y = a[i + 7], b[j + 7]
        i += 8 * (x <= y)
        j += 8 * (y <= x)
    while i < end_a and j < end_b and total + min(end_a - i, end_b - j) >= needed:
        x, y = a[i], b[j]
        total += x == y
        i += x <= y
        j += y <= x
    return total


@part
def _give_back(hashes: U64) -> None:
    """Of a file that is mapped to be read, so nothing is lost."""
    address = hashes.ctypes.data
    first = (address + _PAGE - 1) // _PAGE * _PAGE
    size = address + 8 * len(hashes) - first
    if size > 0:
        _madvise(first, size, _DONTNEED)
