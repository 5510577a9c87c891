"""Shingle sets that lie in a mapped file → how many hashes two share, while little of the file stays resident.

What a process reads of a mapped file counts as its memory until the system takes it away, which it does late. Here the
process gives it back itself, whenever it has looked at about RESIDENT hashes: the pages stay in the system's cache, so
to look again costs a fault and no reading. `looked_at` counts, in a place of its own (an array of one); it is empty
where hashes are in memory, which is never given back, or so few that they may stay (`counter`).
"""

from __future__ import annotations

import numpy as np

from dataproc.kernels.scratch import RESIDENT
from dataproc.native import I64, U64


def counter(hashes: U64) -> I64:
    """`looked_at` for a file of hashes that has just been mapped to be read."""
    return np.zeros(1 if len(hashes) > RESIDENT else 0, np.int64)
