"""Scores → where the marks of a dot plot lie, in percent of its width. The template draws them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from manifest.report import Score

EDGE = 2.0  # percent left free at both ends, so that no mark is cut
TICKS = 5


@dataclass(frozen=True)
class Mark:
    """A row: the score with its interval, and the score that it is compared with."""

    score: Score
    at: float
    low: float
    high: float
    compared: float | None
    compared_at: float | None


@dataclass(frozen=True)
class Tick:
    label: str
    at: float


@dataclass(frozen=True)
class Chart:
    marks: tuple[Mark, ...]
    ticks: tuple[Tick, ...]


def chart(scores: Sequence[Score], compared: Sequence[float | None]) -> Chart:
    """A dot plot of scores on one scale; `compared` has the other value of each, or None."""
    values = [v for s in scores for v in (s.value, s.low, s.high)] + [c for c in compared if c is not None]
    first, step, count = scale(min(values), max(values))
    last = first + step * (count - 1)

    def at(value: float) -> float:
        return round(EDGE + (100 - 2 * EDGE) * (value - first) / (last - first), 3)

    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    return Chart(
        tuple(
            Mark(s, at(s.value), at(s.low), at(s.high), other, None if other is None else at(other))
            for s, other in zip(scores, compared, strict=True)
        ),
        tuple(Tick(f"{first + step * i:.{decimals}f}", at(first + step * i)) for i in range(count)),
    )


def scale(low: float, high: float) -> tuple[float, float, int]:
    """(first tick, step, number of ticks): steps of 1, 2 or 5 × 10ⁿ, about TICKS of them, that cover [low, high]."""
    rough = max(high - low, 1e-3) / (TICKS - 1)
    magnitude = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * magnitude for factor in (1, 2, 5, 10) if factor * magnitude >= rough * (1 - 1e-9))
    first = math.floor(low / step + 1e-9)
    last = max(math.ceil(high / step - 1e-9), first + 1)
    return first * step, step, last - first + 1
