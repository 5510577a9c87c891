"""The schedules of a run before it is one: what each phase's learning rate and weight decay come to.

phase ─► steps ─► curve ─► {shape, over which steps, warm-up, peak, end, value at the phase's first and last step}
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from manifest.record import Model
from trainer.recipe import TrainRecipe
from trainer.schedule import Curve, decay_curves, rate_curves


class SchedulePlan(Model):
    """A curve, resolved. It runs over `steps` steps from `first_step` on, which may begin before the phase and end
    after it. first, last: the value at the phase's own first and last step. decay_steps: of `wsd`; knots: of
    `piecewise`, after how many steps which value.
    """

    shape: str
    first_step: int
    steps: int
    warmup_steps: int
    start: float
    peak: float
    end: float
    decay_steps: int
    knots: tuple[tuple[int, float], ...]
    first: float
    last: float


class PhaseSchedules(Model):
    """Of one phase. weight_decay: None where the recipe does not schedule it."""

    rate: SchedulePlan
    weight_decay: SchedulePlan | None = None


def plan_schedules(recipe: TrainRecipe, steps: Mapping[str, range]) -> dict[str, PhaseSchedules]:
    """The schedules of each phase, given its steps."""
    rates, decays = rate_curves(recipe, steps), decay_curves(recipe, steps)
    return {
        name: PhaseSchedules(
            rate=_plan(rates[name], steps[name]),
            weight_decay=_plan(decays[name], steps[name]) if recipe.schedules_weight_decay else None,
        )
        for name in recipe.phases
    }


def _plan(curve: Curve, steps: range) -> SchedulePlan:
    return SchedulePlan(
        shape=curve.shape,
        first_step=curve.first_step,
        steps=curve.steps,
        warmup_steps=curve.warmup_steps,
        start=curve.start,
        peak=curve.peak,
        end=curve.end,
        decay_steps=curve.decay_steps,
        knots=curve.knots,
        first=curve.rate(steps.start),
        last=curve.rate(steps.stop - 1),
    )


def schedule_lines(schedules: PhaseSchedules) -> Iterator[str]:
    """The schedules of a phase for a person."""
    yield f"learning rate {_sentence(schedules.rate)}"
    if schedules.weight_decay is not None:
        yield f"weight decay {_sentence(schedules.weight_decay)}"


def _sentence(plan: SchedulePlan) -> str:
    if plan.shape == "constant" and not plan.warmup_steps:
        return f"{_number(plan.peak)}"
    warm = f"{plan.warmup_steps:,} of warm-up from {_number(plan.start)}, " if plan.warmup_steps else ""
    decay = f"{plan.decay_steps:,} of decay, " if plan.shape == "wsd" else ""
    ends = _number(plan.peak) if plan.shape == "constant" else f"{_number(plan.peak)} to {_number(plan.end)}"
    if plan.knots:
        ends = ", ".join(f"{_number(value)} after {place:,}" for place, value in plan.knots)
    return (
        f"{plan.shape}, {ends}, over steps {plan.first_step:,} to {plan.first_step + plan.steps:,} ({warm}{decay}"
        f"at the phase's first step {_number(plan.first)}, at its last {_number(plan.last)})"
    )


def _number(value: float) -> str:
    return f"{value:.5g}"
