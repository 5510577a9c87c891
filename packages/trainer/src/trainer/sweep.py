"""Learning-rate transfer: is the best rate of a narrow model that of a wide one?

    recipe, mixture ─► a proxy per width and rate ─► its final loss ─► the best rate of each width ─► how far they drift

The rates are powers of two around the recipe's first peak. Between them the best is where the parabola through the best
three has its bottom, in log₂ of the rate.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from manifest.errors import RecipeError
from manifest.record import Model
from trainer.fanout import fan_out
from trainer.proxy import Proxies, peak_of
from trainer.trial import Trial, TrialResult
from trainer.workers import Workers

DRIFT = 1.0
"""Octaves: the best rates of all widths lie within a factor of two."""

LEAST_WIDTHS, LEAST_RATES = 2, 3
STANDARD, MUP = "standard", "muP"

Losses = Mapping[float, float | None]
"""The final loss of each rate; None where it was no number."""


class WidthCurve(Model):
    """A width: (rate, final loss) in order of rate. best_on_grid: None if none could be learned with; best: between
    them, None if it is at the edge of the grid or beyond.
    """

    width: int
    losses: tuple[tuple[float, float | None], ...]
    best_on_grid: float | None
    best: float | None


class RateTransfer(Model):
    """A parametrisation. drift: octaves between the lowest and the highest best rate. cost: what the widest loses with
    the narrowest's best rate of the grid, in nats; None if that diverges.
    """

    curves: tuple[WidthCurve, ...]
    drift: float | None
    cost: float | None
    passed: bool


class Sweep(Model):
    """What a sweep found. passed: with muP the best rate stays within DRIFT octaves over all widths."""

    recipe: str
    mixture: str
    widths: tuple[int, ...]
    rates: tuple[float, ...]
    tokens: int
    seeds: int
    passed: bool
    parametrisations: dict[str, RateTransfer]


@dataclass(frozen=True)
class SweepOptions:
    """rates: how many, powers of two around the recipe's peak. standard: also without muP, for contrast."""

    widths: tuple[int, ...] = (32, 64, 128, 256)
    rates: int = 7
    seeds: int = 1
    standard: bool = False


def sweep(proxies: Proxies, options: SweepOptions, workers: Workers, directory: Path) -> Sweep:
    """Trains what of the trials is not in `directory` yet, and judges. Raises RecipeError, and as `fan_out` does."""
    widths, rates = _grid(proxies, options)
    kinds = [MUP, STANDARD] if options.standard else [MUP]
    trials = {
        (kind, width, rate, seed): proxies.trial(width, rate, seed=seed, mup=kind == MUP)
        for kind in kinds
        for width in widths
        for rate in rates
        for seed in range(options.seeds)
    }
    results = fan_out(list(trials.values()), workers, directory)

    def mean(kind: str, width: int, rate: float) -> float | None:
        return mean_final([trials[kind, width, rate, seed] for seed in range(options.seeds)], results)

    judged = {
        kind: judge({width: {rate: mean(kind, width, rate) for rate in rates} for width in widths}) for kind in kinds
    }
    return Sweep(
        recipe=proxies.recipe.name,
        mixture=proxies.reference.id,
        widths=widths,
        rates=rates,
        tokens=proxies.pace.tokens,
        seeds=options.seeds,
        passed=judged[MUP].passed,
        parametrisations=judged,
    )


def _grid(proxies: Proxies, options: SweepOptions) -> tuple[tuple[int, ...], tuple[float, ...]]:
    widths = tuple(sorted(set(options.widths)))
    if len(widths) < LEAST_WIDTHS:
        raise RecipeError(f"--widths: found {len(widths)}; transfer needs at least {LEAST_WIDTHS}")
    if options.rates < LEAST_RATES:
        raise RecipeError(f"--rates {options.rates}: a best rate between others needs at least {LEAST_RATES}")
    middle = options.rates // 2
    return widths, tuple(peak_of(proxies.recipe) * 2.0 ** (index - middle) for index in range(options.rates))


def mean_final(trials: Sequence[Trial], results: Mapping[str, TrialResult]) -> float | None:
    """The final loss over some seeds; None if one of them came to none."""
    found = [results[trial.key].final for trial in trials]
    finite = [loss for loss in found if loss is not None]
    return fmean(finite) if len(finite) == len(found) else None


def judge(by_width: Mapping[int, Losses]) -> RateTransfer:
    """Final losses per width and rate → how far the best rate drifts."""
    curves = tuple(_curve(width, losses) for width, losses in by_width.items())
    best = [math.log2(curve.best) for curve in curves if curve.best is not None]
    drift = max(best) - min(best) if len(best) == len(curves) else None
    narrowest, widest = min(curves, key=lambda curve: curve.width), max(curves, key=lambda curve: curve.width)
    taken, least = (
        None if curve.best_on_grid is None else dict(widest.losses)[curve.best_on_grid] for curve in (narrowest, widest)
    )
    return RateTransfer(
        curves=curves,
        drift=drift,
        cost=None if taken is None or least is None else taken - least,
        passed=drift is not None and drift <= DRIFT,
    )


def _curve(width: int, losses: Losses) -> WidthCurve:
    rates = sorted(losses)
    finite = {rate: loss for rate, loss in losses.items() if loss is not None}
    lowest = min(finite, key=lambda rate: (finite[rate], rate), default=None)
    return WidthCurve(
        width=width,
        losses=tuple((rate, losses[rate]) for rate in rates),
        best_on_grid=lowest,
        best=None if lowest is None else _bottom(rates, losses, rates.index(lowest)),
    )


def _bottom(rates: Sequence[float], losses: Losses, lowest: int) -> float | None:
    """The bottom of the parabola through the lowest point and its neighbours; None if one of those is missing."""
    if not 0 < lowest < len(rates) - 1:
        return None
    (x0, y0), (x1, y1), (x2, y2) = ((math.log2(rate), losses[rate]) for rate in rates[lowest - 1 : lowest + 2])
    if y0 is None or y1 is None or y2 is None:
        return rates[lowest]
    # Newton's divided differences; the second is not negative, as the middle point is the lowest.
    first, second = (y1 - y0) / (x1 - x0), ((y2 - y1) / (x2 - x1) - (y1 - y0) / (x1 - x0)) / (x2 - x0)
    return rates[lowest] if second <= 0 else 2.0 ** ((x0 + x1) / 2 - first / (2 * second))


def lines(found: Sweep) -> Iterator[str]:
    """For a person."""
    for kind, transfer in found.parametrisations.items():
        yield f"{found.recipe}, {kind}: final loss per learning rate, {found.tokens:,} tokens, {found.seeds} seeds"
        yield "  width   " + "".join(f"{rate:>10.3g}" for rate in found.rates) + "      best"
        for curve in transfer.curves:
            said = "".join(f"{'–' if loss is None else format(loss, '.3f'):>10}" for _, loss in curve.losses)
            yield f"  {curve.width:<8}{said}{'at an edge' if curve.best is None else format(curve.best, '10.3g')}"
        drift = "unknown" if transfer.drift is None else f"{transfer.drift:.2f} octaves"
        cost = "diverges" if transfer.cost is None else f"loses {transfer.cost:.4f} nats"
        yield f"  the best rate drifts by {drift}; with the narrowest's, the widest {cost}"


def verdict(found: Sweep) -> str | None:
    """What is wrong, if the sweep does not pass."""
    own = found.parametrisations[MUP]
    if own.passed:
        return None
    at_edge = [str(curve.width) for curve in own.curves if curve.best is None]
    if at_edge:
        return (
            f"{found.recipe}: the best rate of width {', '.join(at_edge)} is at the edge of the grid; give more "
            "--rates, or more --tokens"
        )
    return (
        f"{found.recipe}: with muP the best rate drifts by {own.drift:.2f} octaves over the widths, more than {DRIFT}. "
        "Of a few steps it is uncertain by as much: give more --tokens or --seeds before doubting the parametrisation"
    )
