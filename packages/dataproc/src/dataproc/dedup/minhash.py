"""Shingle hashes → MinHash signatures, bit for bit those of datasketch 2.

In: hashes u64 (flat, per document). Out: signatures (N, D) u32, column k the smallest value that the k-th of
D permutations gives to any of the document's hashes. Two signatures are equal in a column with a probability
that is the Jaccard index of the two sets.

`Scheme` says how a permutation maps the low 32 bits h of a shingle hash. Signatures do not tell their scheme
and mix in silence, so it belongs into the fingerprint of the artifact that holds them.

    affine32   a · mix(h) + b mod 2³², a odd; mix is MurmurHash3's finaliser. datasketch's default since 2.0
    legacy     (a · h + b mod 2⁶⁴) mod (2⁶¹ - 1), low 32 bits. datasketch before 2.0
"""

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from dataproc.dedup.kernel import kernel
from dataproc.dedup.shingles import ShingleHashes

Scheme = Literal["affine32", "legacy"]
UNSIGNED = 2**32 - 1  # every value of the signature of a document without shingles, as in datasketch

_MERSENNE = 2**61 - 1


def signatures(
    shingles: ShingleHashes, permutations: int = 128, *, seed: int = 1, scheme: Scheme = "affine32"
) -> NDArray[np.uint32]:
    """One row per document; a document without shingles gets a row of `UNSIGNED` (see `is_signed`)."""
    if scheme not in get_args(Scheme):
        raise ValueError(f"no scheme {scheme!r}; expected one of {', '.join(get_args(Scheme))}")
    signatures_ND = np.full((len(shingles.offsets) - 1, permutations), UNSIGNED, np.uint32)
    if scheme == "affine32":
        _affine32_minima(shingles.hashes, shingles.offsets, *_affine32(permutations, seed), signatures_ND)
    else:
        _legacy_minima(shingles.hashes, shingles.offsets, *_legacy(permutations, seed), signatures_ND)
    return signatures_ND


def is_signed(signatures_ND: NDArray[np.uint32]) -> NDArray[np.bool_]:
    """Which documents have a signature. The others agree in every band and have nothing in common."""
    signed: NDArray[np.bool_] = (signatures_ND != UNSIGNED).any(axis=1)
    return signed


def _affine32(permutations: int, seed: int) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    generator = np.random.RandomState(seed)
    halves = generator.randint(0, 1 << 31, permutations, dtype=np.uint32)
    terms = generator.randint(0, 1 << 32, permutations, dtype=np.uint32)
    return halves * np.uint32(2) + np.uint32(1), terms


def _legacy(permutations: int, seed: int) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    generator = np.random.RandomState(seed)
    pairs = [
        (generator.randint(1, _MERSENNE, dtype=np.uint64), generator.randint(0, _MERSENNE, dtype=np.uint64))
        for _ in range(permutations)
    ]
    factors, terms = np.array(pairs, np.uint64).reshape(-1, 2).T.copy()
    return factors, terms


@kernel
def _affine32_minima(
    hashes: NDArray[np.uint64],
    offsets: NDArray[np.int64],
    factors: NDArray[np.uint32],
    terms: NDArray[np.uint32],
    signatures_ND: NDArray[np.uint32],
) -> None:
    mixed = np.empty(8, np.uint32)
    for row in range(len(offsets) - 1):
        last = offsets[row + 1] - 1
        for first in range(offsets[row], offsets[row + 1], 8):
            for i in range(8):  # the last one stands in for those past the end, which changes no minimum
                mixed[i] = _mix32(np.uint32(hashes[min(first + i, last)]))
            _sweep(mixed, factors, terms, signatures_ND[row])


@kernel
def _sweep(
    mixed: NDArray[np.uint32],
    factors: NDArray[np.uint32],
    terms: NDArray[np.uint32],
    minima: NDArray[np.uint32],
) -> None:
    """Eight shingles per sweep over the permutations: each minimum is read and written once for all."""
    for k in range(len(minima)):
        smallest = minima[k]
        for i in range(8):
            smallest = min(smallest, np.uint32(factors[k] * mixed[i] + terms[k]))
        minima[k] = smallest


@kernel
def _mix32(h: np.uint32) -> np.uint32:
    h = np.uint32((h ^ (h >> np.uint32(16))) * np.uint32(0x85EBCA6B))
    h = np.uint32((h ^ (h >> np.uint32(13))) * np.uint32(0xC2B2AE35))
    return h ^ (h >> np.uint32(16))


@kernel
def _legacy_minima(
    hashes: NDArray[np.uint64],
    offsets: NDArray[np.int64],
    factors: NDArray[np.uint64],
    terms: NDArray[np.uint64],
    signatures_ND: NDArray[np.uint32],
) -> None:
    for row in range(len(offsets) - 1):
        minima = signatures_ND[row]
        for value in hashes[offsets[row] : offsets[row + 1]]:
            low = value & np.uint64(0xFFFFFFFF)
            for k in range(len(minima)):
                permuted = (factors[k] * low + terms[k]) % np.uint64(_MERSENNE)
                minima[k] = min(minima[k], np.uint32(permuted & np.uint64(0xFFFFFFFF)))
