"""What kernels work in. They own no memory, so Python hands it to them, once per batch and thread."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from dataproc.native import I64, U8, U32, U64

BLOCK = 64  # bytes per vector
MARGIN = 2 * BLOCK  # vectors are read so far before and behind a text, and written so far behind it
HASHES = 512  # shingles that are hashed in one go: their 4 KiB stay in the cache
SEEN = 4096  # places for hashes seen lately, 16 KiB
LANES = 32  # permutations that keep their minima in registers
WIDE_LANES = 8  # 64-bit numbers in a vector
NEAR = 100  # bytes that Python makes NFC in the time of a call
LONG = 1 << 20  # bytes that it makes NFC at a time, if there is white space to cut them
RESIDENT = 1 << 25  # hashes of a mapped file that may be in memory: 256 MB


class Scratch(NamedTuple):
    """Bytes of a block; a cleaned text of up to the longest row's size, with margins; and what hashing needs."""

    block: U8
    text: U8
    state: I64
    ring: U64
    places: I64
    hashes: U64
    mixed: U32
    seen: U32


def scratch(longest: int, n: int = 1) -> Scratch:
    """For rows of up to `longest` bytes and shingles of n units."""
    return Scratch(
        block=aligned(2 * MARGIN, np.uint8),
        text=aligned(longest + 3 * MARGIN, np.uint8),
        state=aligned(4, np.int64),
        ring=aligned(1 << (n - 1).bit_length(), np.uint64),
        places=aligned(HASHES + n + MARGIN, np.int64),
        hashes=aligned(HASHES, np.uint64),
        mixed=aligned(HASHES, np.uint32),
        seen=aligned(SEEN, np.uint32),
    )


def aligned(count: int, dtype: DTypeLike) -> NDArray[Any]:
    """An array, not initialised, that begins where a vector can be loaded without crossing a cache line."""
    size = count * np.dtype(dtype).itemsize
    whole = np.empty(size + BLOCK, np.uint8)
    start = -whole.__array_interface__["data"][0] % BLOCK
    return whole[start : start + size].view(dtype)
