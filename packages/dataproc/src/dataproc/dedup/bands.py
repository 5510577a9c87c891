"""Signatures → band keys: documents that share a key in any band are candidates for a pair.

In: signatures (N, D) u32. Out: keys (N, bands.count) u64; column b is a hash of the values in rows
b · rows … (b + 1) · rows - 1 and of b itself, so keys of different bands can lie in one table.

Two documents of Jaccard index J share a key in at least one of b bands of r rows with probability
1 - (1 - J^r)^b, the S-curve. More rows make fewer false candidates and more missed pairs.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dataproc.dedup.kernel import kernel


@dataclass(frozen=True)
class Bands:
    """`count` bands of `rows` signature values each."""

    count: int
    rows: int

    def __post_init__(self) -> None:
        if self.count < 1 or self.rows < 1:
            raise ValueError(f"bands: {self.count} of {self.rows} rows; both must be at least 1")

    @property
    def width(self) -> int:
        """Signature values in use."""
        return self.count * self.rows

    def catch_probability(self, jaccard: float) -> float:
        """How likely a pair of this Jaccard index is to share a key."""
        return 1 - (1 - jaccard**self.rows) ** self.count


def verified_bands(threshold: float, permutations: int, recall: float = 0.995) -> Bands:
    """The bands for candidates that are verified: the most rows that still catch J = threshold as asked.

    21 × 6 for 0.8 and 128 permutations, which catch 0.998 of the pairs at J = 0.8.
    """
    for rows in range(permutations, 0, -1):
        bands = Bands(permutations // rows, rows)
        if bands.catch_probability(threshold) >= recall:
            return bands
    raise ValueError(
        f"{permutations} permutations cannot catch {recall} of the pairs at J = {threshold}; "
        "take more permutations, a higher threshold or a lower recall"
    )


def optimal_bands(threshold: float, permutations: int) -> Bands:
    """The bands for candidates that nobody verifies: datasketch's choice, which weighs both errors alike.

    9 × 13 for 0.8 and 128 permutations, which catch 0.40 of the pairs at J = 0.8.
    """
    from datasketch import MinHashLSH  # scipy comes with it, which workers have no use for

    index = MinHashLSH(threshold=threshold, num_perm=permutations)
    return Bands(index.b, index.r)


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
