"""Lengths → ranges of positions over which losses are averaged.

A position is how many tokens of its window a model has read before the one that it predicts: 1 … length − 1. There are
two buckets per doubling, for a model's loss falls about evenly with the logarithm of its context, and every length that
is asked for or was trained is an edge, so no bucket mixes what was trained with what was not:

    1  16  24  32  48  64  96  128  192  256  384  512
"""

from __future__ import annotations

from collections.abc import Collection
from itertools import pairwise

from manifest.record import Model

FINEST = 16
"""Positions below it are one bucket: the first tokens of a window are few, and their losses far from each other."""


class Bucket(Model):
    """Positions `first` ≤ p < `stop`, in tokens read before the one that is predicted."""

    first: int
    stop: int

    @property
    def width(self) -> int:
        return self.stop - self.first

    def __str__(self) -> str:
        return f"{self.first:,}–{self.stop - 1:,}" if self.width > 1 else f"{self.first:,}"


def buckets(longest: int, lengths: Collection[int]) -> tuple[Bucket, ...]:
    """The buckets of windows of `longest` tokens, in order, with all of them and nothing twice.

    lengths: edges that there must be, where they are shorter than `longest`. An edge of the doublings that would stand
    within an eighth of one of them is left out.
    """
    edges = {1, longest} | {length for length in lengths if 1 < length < longest}
    edge = longest
    while edge > FINEST:
        edges |= {e for e in (edge, edge * 3 // 4) if e >= FINEST and all(8 * abs(e - other) > e for other in edges)}
        edge //= 2
    if longest > FINEST and all(8 * abs(FINEST - other) > FINEST for other in edges):
        edges.add(FINEST)
    return tuple(Bucket(first=first, stop=stop) for first, stop in pairwise(sorted(edges)))
