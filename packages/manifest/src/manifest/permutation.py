"""A keyed permutation of range(size), forward and backward, without a list.

A balanced Feistel network over the smallest even number of bits that holds `size`, walked along its cycles
until the value falls inside (Black and Rogaway, "Ciphers with arbitrary finite domains", 2002). The round
function is the finaliser of SplitMix64 (Steele et al., 2014) under round keys drawn by BLAKE2b from the key.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]

ROUNDS = 8  # four are enough against chosen plaintexts; domains of a few values want more
_MASK = (1 << 64) - 1
_ONE_BY_ONE = 8
"""Values that are walked on without arrays: so few cost less alone."""


@dataclass(frozen=True)
class Permutation:
    """π over range(size)."""

    size: int
    half_bits: int
    round_keys: tuple[int, ...]

    def forward(self, index: int) -> int:
        """π(index). Raises IndexError outside range(size)."""
        return self._walk(index, self.round_keys, forward=True)

    def inverse(self, value: int) -> int:
        """The index that π sends to `value`. Raises IndexError outside range(size)."""
        return self._walk(value, self.round_keys[::-1], forward=False)

    def _walk(self, value: int, keys: tuple[int, ...], *, forward: bool) -> int:
        if not 0 <= value < self.size:
            raise IndexError(f"{value} is outside a permutation of {self.size}")
        return self._until_inside(value, keys, forward=forward)

    def walk_on(self, value: int) -> int:
        """π of the index from which walking has come to `value`, which may lie outside range(size)."""
        return self._until_inside(value, self.round_keys, forward=True)

    def _until_inside(self, value: int, keys: tuple[int, ...], *, forward: bool) -> int:
        while True:
            value = self._encrypt(value, keys) if forward else self._decrypt(value, keys)
            if value < self.size:
                return value

    def _encrypt(self, value: int, keys: tuple[int, ...]) -> int:
        bits, low = self.half_bits, (1 << self.half_bits) - 1
        left, right = value >> bits, value & low
        for key in keys:
            left, right = right, left ^ (_mix(right ^ key) & low)
        return left << bits | right

    def _decrypt(self, value: int, keys: tuple[int, ...]) -> int:
        bits, low = self.half_bits, (1 << self.half_bits) - 1
        left, right = value >> bits, value & low
        for key in keys:
            left, right = right ^ (_mix(left ^ key) & low), left
        return left << bits | right


def _mix(value: int) -> int:
    value = (value + 0x9E3779B97F4A7C15) & _MASK
    value = ((value ^ value >> 30) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ value >> 27) * 0x94D049BB133111EB) & _MASK
    return value ^ value >> 31


def forward_each(permutations: Sequence[Permutation], which_N: Ints, index_N: Ints) -> Ints:
    """π(index) of each index, π being the permutation of that number."""
    keys_RP = np.array([pi.round_keys for pi in permutations], np.uint64).T
    bits_P = np.array([pi.half_bits for pi in permutations], np.uint64)
    size_P = np.array([pi.size for pi in permutations], np.uint64)
    out_N, left_M = index_N.astype(np.uint64), np.arange(index_N.size)
    while left_M.size > _ONE_BY_ONE:
        which_M = which_N[left_M]
        value_M = _encrypt_each(out_N[left_M], keys_RP[:, which_M], bits_P[which_M])
        out_N[left_M] = value_M
        left_M = left_M[value_M >= size_P[which_M]]
    found_N = out_N.astype(np.int64)
    for place in left_M.tolist():  # π walks on from any value on the way as from the index itself
        pi = permutations[int(which_N[place])]
        found_N[place] = pi.walk_on(int(out_N[place]))
    return found_N


def _encrypt_each(value_M: Words, keys_RM: Words, bits_M: Words) -> Words:
    low_M = (np.uint64(1) << bits_M) - np.uint64(1)
    left_M, right_M = value_M >> bits_M, value_M & low_M
    for key_M in keys_RM:
        left_M, right_M = right_M, left_M ^ (_mix_each(right_M ^ key_M) & low_M)
    return left_M << bits_M | right_M


def _mix_each(value_M: Words) -> Words:
    """`_mix` of each value."""
    value_M = value_M + np.uint64(0x9E3779B97F4A7C15)
    value_M = (value_M ^ value_M >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    value_M = (value_M ^ value_M >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return value_M ^ value_M >> np.uint64(31)


@lru_cache(maxsize=4096)
def permutation(size: int, *, seed: int, stream: str, epoch: int) -> Permutation:
    """The permutation of a stream's blocks in an epoch, keyed by (seed, tokens id, epoch)."""
    assert size > 0
    key = f"winnow order 1|{seed}|{stream}|{epoch}".encode()
    stretched = b"".join(hashlib.blake2b(key, digest_size=64, salt=bytes([i])).digest() for i in range(ROUNDS // 8))
    round_keys = tuple(int.from_bytes(stretched[8 * i : 8 * i + 8], "big") for i in range(ROUNDS))
    half_bits = max(1, ((size - 1).bit_length() + 1) // 2)
    return Permutation(size, half_bits, round_keys)
