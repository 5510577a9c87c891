"""How many documents of each kind, and which base documents have copies. Counts are exact: they add up to N."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

from dataproc.synth.chance import below, chance, shuffled, weighted
from dataproc.synth.recipe import Copies, SynthRecipe

Planted = tuple[str, float]
"""A kind of copy and its parameter."""


@dataclass(frozen=True)
class Plan:
    """`copies[i]` are planted beside base document `parents[i]` (ascending; numbers from 0 to base - 1)."""

    base: int
    members: tuple[int, ...]
    parents: tuple[int, ...]
    copies: tuple[tuple[Planted, ...], ...]

    @property
    def documents(self) -> int:
        return self.base + sum(self.members) + sum(map(len, self.copies))


def plan(recipe: SynthRecipe, documents: int, seed: int) -> Plan:
    """The plan of a corpus of so many documents."""
    parts = [recipe.copies.share, *(template.share for template in recipe.templates)]
    base, copies, *members = apportioned(documents, [1 - sum(parts), *parts])
    planted = _planted(recipe.copies, copies, seed)
    sizes = list(_sizes(recipe.copies, copies, seed))
    ends = list(accumulate(sizes))
    groups = [tuple(planted[end - size : end]) for size, end in zip(sizes, ends, strict=True)]
    return Plan(base, tuple(members), _parents(base, len(sizes), seed), tuple(groups))


def apportioned(total: int, shares: Sequence[float]) -> list[int]:
    """Whole numbers in proportion to the shares that add up to `total` (largest remainders, the first of equals)."""
    exact = [total * share / sum(shares) for share in shares] if sum(shares) else [0.0 for _ in shares]
    counts = [int(value) for value in exact]
    rest = total - sum(counts) if sum(shares) else 0
    for index in sorted(range(len(shares)), key=lambda i: (counts[i] - exact[i], i))[:rest]:
        counts[index] += 1
    return counts


def _planted(copies: Copies, total: int, seed: int) -> list[Planted]:
    """The kind of every copy, in random order."""
    kinds = [
        (name, param, kind.share / max(1, len(kind.params)))
        for name, kind in copies.kinds.items()
        for param in kind.params or (0.0,)
    ]
    counts = apportioned(total, [share for _, _, share in kinds])
    numbers = [index for index, count in enumerate(counts) for _ in range(count)]
    return [kinds[index][:2] for index in shuffled(chance(seed, "kinds"), numbers)]


def _sizes(copies: Copies, total: int, seed: int) -> Iterator[int]:
    """Copies per base document that has any, until they are `total`."""
    largest = copies.sizes.max_copies
    cumulative = list(accumulate(k**-copies.sizes.exponent for k in range(1, largest + 1)))
    rng = chance(seed, "sizes")
    left = total
    while left:
        size = min(left, weighted(rng, cumulative) + 1)
        left -= size
        yield size


def _parents(base: int, count: int, seed: int) -> tuple[int, ...]:
    """Numbers of base documents, spread over all; one may come twice where there are more than base documents."""
    rng = chance(seed, "parents")
    spread = max(1, base // max(1, count))
    return tuple(index * base // count + below(rng, spread) for index in range(count))
