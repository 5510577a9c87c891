"""Which of many keys may come twice, or be among a few known ones, by a table of bits (buckets.py).

shift: what leaves of a key the high bits that number a bit of the table. Tables come as zeros.
"""

import numpy as np

from dataproc.kernels.build import part
from dataproc.native import U8, U64


def may_repeat(keys: U64, shift: int, once: U64, twice: U64, perhaps: U8) -> int:
    """perhaps[k] = 1 if the high bits of keys[k] come twice."""
    by = np.uint64(shift)
    for key in keys:
        slot = key >> by
        word, bit = slot >> np.uint64(6), np.uint64(1) << (slot & np.uint64(63))
        twice[word] |= once[word] & bit
        once[word] |= bit
    _look_up(keys, by, twice, perhaps)
    return 0


def may_be_among(keys: U64, known: U64, shift: int, table: U64, perhaps: U8) -> int:
    """perhaps[k] = 1 if keys[k] has the high bits of a known key."""
    by = np.uint64(shift)
    for key in known:
        slot = key >> by
        table[slot >> np.uint64(6)] |= np.uint64(1) << (slot & np.uint64(63))
    _look_up(keys, by, table, perhaps)
    return 0


@part
def _look_up(keys: U64, by: np.uint64, table: U64, perhaps: U8) -> None:
    for row in range(len(keys)):
        slot = keys[row] >> by
        perhaps[row] = (table[slot >> np.uint64(6)] >> (slot & np.uint64(63))) & np.uint64(1)
