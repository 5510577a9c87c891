"""Signatures → band keys: documents that share a key in any band are candidates for a pair.

In: signatures (N, D) u32. Out: keys (N, bands.count) u64; column b is a hash of the values in rows
b · rows … (b + 1) · rows - 1 and of b itself, so keys of different bands can lie in one table.
"""

import numpy as np
from numpy.typing import NDArray

from dataproc.dedup.bands import Bands
from dataproc.dedup.kernel import kernel


def band_keys(signatures_ND: NDArray[np.uint32], bands: Bands) -> NDArray[np.uint64]:
    """Two documents share a key in a band iff their `bands.rows` values there agree (up to a 2⁻⁶⁴ chance).

    Each column of the (N, bands.count) keys is contiguous.
    """
    permutations = signatures_ND.shape[1]
    if bands.width > permutations:
        raise ValueError(
            f"bands: {bands.count} × {bands.rows} = {bands.width} values, but signatures have {permutations}"
        )
    keys_BN = np.empty((bands.count, len(signatures_ND)), np.uint64)
    _hash_bands(np.ascontiguousarray(signatures_ND), bands.rows, keys_BN)
    return keys_BN.T


_M0 = np.uint64(0x9E3779B97F4A7C15)  # the golden ratio; the others are splitmix64's
_M1 = np.uint64(0xBF58476D1CE4E5B9)
_M2 = np.uint64(0x94D049BB133111EB)


@kernel
def _hash_bands(signatures_ND: NDArray[np.uint32], rows: int, keys_BN: NDArray[np.uint64]) -> None:
    """Two values at a time are xored in and mixed; each step permutes the 64-bit numbers."""
    for doc in range(len(signatures_ND)):
        values = signatures_ND[doc]
        for band in range(len(keys_BN)):
            key = np.uint64(band + 1) * _M0
            for row in range(band * rows, (band + 1) * rows, 2):
                word = np.uint64(values[row])
                if row + 1 < (band + 1) * rows:
                    word |= np.uint64(values[row + 1]) << np.uint64(32)
                key = (key ^ word) * _M1
                key ^= key >> np.uint64(29)
            key = (key ^ (key >> np.uint64(32))) * _M2
            keys_BN[band, doc] = key ^ (key >> np.uint64(31))
