"""Random numbers that are the same on every machine and for every order of asking.

Each choice has a generator of its own, keyed by what it is for. Of the generator only `random()` is used, whose
sequence Python promises to keep; the draws below are made of it by additions and comparisons.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from manifest.identity import hash64


def chance(*key: object) -> random.Random:
    """The generator of a key, such as (seed, "copy", 17)."""
    return random.Random(hash64("/".join(map(str, key))))


def below(rng: random.Random, n: int) -> int:
    """A whole number from 0 to n - 1."""
    return int(rng.random() * n)


def normal(rng: random.Random) -> float:
    """About a standard normal number, between -6 and 6: the sum of twelve uniform ones."""
    return sum(rng.random() for _ in range(12)) - 6.0


def chosen(rng: random.Random, n: int, k: int) -> list[int]:
    """k different whole numbers below n, ascending (Floyd's algorithm)."""
    picked: set[int] = set()
    for top in range(n - k, n):
        candidate = below(rng, top + 1)
        picked.add(top if candidate in picked else candidate)
    return sorted(picked)


def weighted(rng: random.Random, cumulative: Sequence[float]) -> int:
    """An index, each with the probability by which `cumulative` grows there."""
    point = rng.random() * cumulative[-1]
    return next((i for i, bound in enumerate(cumulative) if point < bound), len(cumulative) - 1)


def shuffled(rng: random.Random, items: Sequence[int]) -> list[int]:
    """The items in a random order (Fisher–Yates)."""
    order = list(items)
    for last in range(len(order) - 1, 0, -1):
        other = below(rng, last + 1)
        order[last], order[other] = order[other], order[last]
    return order
