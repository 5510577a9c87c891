"""Sorted hashes → sets."""

import numpy as np

from dataproc.native import I64, U64


def pack_rows(hashes: U64, bounds: I64, offsets: I64) -> int:
    """Each row's hashes, ascending, without repeats and side by side at the front of the array."""
    to = 0
    for row in range(len(bounds) - 1):
        start, stop = bounds[row], bounds[row + 1]
        if start < stop:
            last = hashes[start]
            hashes[to] = last
            to += 1
            for i in range(start + 1, stop):
                h = hashes[np.uint64(i)]
                hashes[np.uint64(to)] = h  # overwritten by the next if it repeats the last
                to += h != last
                last = h
        offsets[row + 1] = to
    return 0
