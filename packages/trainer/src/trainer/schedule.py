"""The learning rate as a pure function of the step.

Step s counts from 0, and is the (s + 1)-th: warm-up rises to the peak at its last step, and the end is reached at the
last step of the span, so no step has a rate of 0 and none is wasted.

    rate │    ╱╲                    warm-up: peak · n / warmup_steps
         │   ╱  ╲___                then linear, cosine or constant down to `end`
         └──┴───────┴── n = s + 1 − first_step
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from manifest.checkpoint import Timeline
from trainer.recipe import TrainRecipe


@dataclass(frozen=True)
class Curve:
    """A schedule over `steps` steps from `first_step` on; after them it stays at `end`."""

    shape: str
    first_step: int
    warmup_steps: int
    steps: int
    peak: float
    end: float

    def rate(self, step: int) -> float:
        """The learning rate of step `step`, counted from the start of the run."""
        n = step + 1 - self.first_step
        if n < self.warmup_steps:
            return self.peak * n / self.warmup_steps
        if self.shape == "constant":
            return self.peak
        done = min((n - self.warmup_steps) / max(self.steps - self.warmup_steps, 1), 1.0)
        if self.shape == "linear":
            return self.peak + (self.end - self.peak) * done
        assert self.shape == "cosine"
        return self.end + (self.peak - self.end) * (1 + math.cos(math.pi * done)) / 2


def curves(recipe: TrainRecipe, timeline: Timeline) -> tuple[Curve, ...]:
    """The schedule of each segment of a run: that of its phase, whichever mixture it reads."""
    found = _phase_curves(recipe, timeline)
    return tuple(found[segment.phase] for segment in timeline.order.segments)


def _phase_curves(recipe: TrainRecipe, timeline: Timeline) -> dict[str, Curve]:
    """The schedule of each phase. A phase that continues another has the very same curve."""
    found: dict[str, Curve] = {}
    steps = timeline.phase_steps()
    for name, phase in recipe.phases.items():
        schedule = phase.schedule
        if schedule.continues is not None:
            found[name] = found[schedule.continues]
            continue
        assert schedule.shape is not None
        assert schedule.peak is not None
        first_step = steps[name].start
        spans_run = schedule.span == "run"
        found[name] = Curve(
            shape=schedule.shape,
            first_step=first_step,
            warmup_steps=schedule.warmup_steps or 0,
            steps=timeline.total_steps - first_step if spans_run else len(steps[name]),
            peak=schedule.peak,
            end=schedule.peak if schedule.end is None else schedule.end,
        )
    return found


def warnings(recipe: TrainRecipe, timeline: Timeline) -> list[str]:
    """What of the schedules cannot happen in a run of this length."""
    return [
        f"phase {name!r}: {curve.warmup_steps} steps of warm-up, but its schedule has {curve.steps}: "
        f"the learning rate never reaches {curve.peak}"
        for name, curve in _phase_curves(recipe, timeline).items()
        if recipe.phases[name].schedule.continues is None and curve.warmup_steps > curve.steps
    ]
