"""A keyed permutation of range(size), forward and backward, without a list.

A balanced Feistel network over the smallest even number of bits that holds `size`, walked along its cycles
until the value falls inside (Black and Rogaway, "Ciphers with arbitrary finite domains", 2002). The round
function is the finaliser of SplitMix64 (Steele et al., 2014) under round keys drawn by BLAKE2b from the key.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache

ROUNDS = 8  # four are enough against chosen plaintexts; domains of a few values want more
_MASK = (1 << 64) - 1


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


@lru_cache(maxsize=4096)
def permutation(size: int, *, seed: int, stream: str, epoch: int) -> Permutation:
    """The permutation of a stream's blocks in an epoch, keyed by (seed, tokens id, epoch)."""
    assert size > 0
    key = f"winnow order 1|{seed}|{stream}|{epoch}".encode()
    stretched = b"".join(hashlib.blake2b(key, digest_size=64, salt=bytes([i])).digest() for i in range(ROUNDS // 8))
    round_keys = tuple(int.from_bytes(stretched[8 * i : 8 * i + 8], "big") for i in range(ROUNDS))
    half_bits = max(1, ((size - 1).bit_length() + 1) // 2)
    return Permutation(size, half_bits, round_keys)
