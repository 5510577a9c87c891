"""Signatures → band keys: documents that share a key in any band are candidates for a pair.

In: signatures (N, D) u32. Out: keys (N, bands.count) u64; column b is a hash of the values in rows
b · rows … (b + 1) · rows - 1 and of b itself, so keys of different bands can lie in one table.
"""

import numpy as np
from numpy.typing import NDArray

from dataproc.dedup.bands import Bands
from dataproc.native import Native

_hash_bands = Native("dataproc.kernels.bands", "hash_bands")


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
    flat = np.ascontiguousarray(signatures_ND).reshape(-1)
    _hash_bands(flat, permutations, bands.count, bands.rows, keys_BN.reshape(-1))
    return keys_BN.T
