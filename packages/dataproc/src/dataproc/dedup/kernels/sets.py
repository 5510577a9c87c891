"""Sorted hashes → sets."""

from dataproc.dedup.native import I64, U64


def pack_rows(hashes: U64, bounds: I64, offsets: I64) -> int:
    """Each row's hashes, ascending, without repeats and side by side at the front of the array."""
    to = 0
    for row in range(len(bounds) - 1):
        first = to
        for i in range(bounds[row], bounds[row + 1]):
            h = hashes[i]
            if to == first or h != hashes[to - 1]:
                hashes[to] = h
                to += 1
        offsets[row + 1] = to
    return 0
