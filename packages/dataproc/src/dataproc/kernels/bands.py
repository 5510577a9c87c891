"""Signatures → band keys (band_keys.py)."""

import numpy as np

from dataproc.native import U32, U64

_M0 = np.uint64(0x9E3779B97F4A7C15)  # the golden ratio; the others are splitmix64's
_M1 = np.uint64(0xBF58476D1CE4E5B9)
_M2 = np.uint64(0x94D049BB133111EB)


def hash_bands(signatures: U32, permutations: int, bands: int, rows: int, keys: U64) -> int:
    """signatures (N, permutations) and keys (bands, N), flat. Two values at a time are xored in and mixed; each step
    permutes the 64-bit numbers.
    """
    documents = len(signatures) // permutations
    for doc in range(documents):
        base = doc * permutations
        for band in range(bands):
            key = np.uint64(band + 1) * _M0
            end = base + (band + 1) * rows
            for at in range(base + band * rows, end, 2):
                word = np.uint64(signatures[at])
                if at + 1 < end:
                    word |= np.uint64(signatures[at + 1]) << np.uint64(32)
                key = (key ^ word) * _M1
                key ^= key >> np.uint64(29)
            key = (key ^ (key >> np.uint64(32))) * _M2
            keys[band * documents + doc] = key ^ (key >> np.uint64(31))
    return 0
