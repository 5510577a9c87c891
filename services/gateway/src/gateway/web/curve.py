"""Rows of a run's metrics → its loss curve: marks at percents of a plot that is as wide as its place."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MOST_POINTS = 400


@dataclass(frozen=True)
class Tick:
    """A line of the grid: where it lies, in percents from the left or the top, and what it says."""

    at: float
    label: str


@dataclass(frozen=True)
class Curve:
    """The loss over the steps. `points`: "x,y x,y …" in percents, as SVG takes them."""

    points: str
    steps: tuple[Tick, ...]
    losses: tuple[Tick, ...]
    first: Mapping[str, Any]
    last: Mapping[str, Any]
    lowest: Mapping[str, Any]


def curve(rows: Sequence[Mapping[str, Any]]) -> Curve | None:
    """None while there are fewer than two steps to draw a line between."""
    sound = [row for row in rows if _is_sound(row)]
    if len({row["step"] for row in sound}) < 2:
        return None
    low, high, loss_ticks = _axis(min(row["loss"] for row in sound), max(row["loss"] for row in sound))
    first, last = sound[0]["step"], sound[-1]["step"]
    across = 100 / (last - first)
    points = " ".join(
        f"{(row['step'] - first) * across:.2f},{(high - row['loss']) / (high - low) * 100:.2f}"
        for row in thinned(sound)
    )
    return Curve(
        points,
        tuple(Tick((step - first) * across, f"{step:,.0f}") for step in _ticks(first, last, 4, whole=True)),
        tuple(Tick((high - loss) / (high - low) * 100, f"{loss:.6g}") for loss in loss_ticks),
        sound[0],
        sound[-1],
        min(sound, key=lambda row: row["loss"]),
    )


def thinned(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """At most MOST_POINTS rows, evenly spread, the first and the last among them."""
    if len(rows) <= MOST_POINTS:
        return list(rows)
    return [rows[round(i * (len(rows) - 1) / (MOST_POINTS - 1))] for i in range(MOST_POINTS)]


def _is_sound(row: Mapping[str, Any]) -> bool:
    return all(isinstance(row.get(key), int | float) and math.isfinite(row[key]) for key in ("step", "loss"))


def _axis(low: float, high: float) -> tuple[float, float, list[float]]:
    """Round numbers around what is shown: the lowest, the highest, and the ticks."""
    if high - low < 1e-9 * max(1.0, abs(high)):
        low, high = low - 0.5, high + 0.5
    step = _round_step((high - low) / 5)
    first, last = math.floor(low / step), math.ceil(high / step)
    return first * step, last * step, [i * step for i in range(first, last + 1)]


def _ticks(low: float, high: float, most: int, *, whole: bool) -> list[float]:
    step = _round_step((high - low) / most)
    if whole:
        step = max(1.0, step)
    return [i * step for i in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _round_step(wanted: float) -> float:
    """The smallest of 1, 2 and 5 times a power of ten that is no smaller."""
    scale: float = 10.0 ** math.floor(math.log10(wanted))
    return next(factor * scale for factor in (1, 2, 5, 10) if factor * scale >= wanted * (1 - 1e-9))
