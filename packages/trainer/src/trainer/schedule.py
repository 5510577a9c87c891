"""The learning rate, and the weight decay, as pure functions of the step.

Step s counts from 0, and is the (s + 1)-th: warm-up rises to the peak at its last step, and the end is reached at the
last step of the span, so no step has a rate of 0 and none is wasted.

    rate │    ╱╲                    warm-up: start + (peak − start) · n / warmup_steps
         │   ╱  ╲___                then linear, cosine or constant down to `end`; wsd: constant, and down at the end;
         └──┴───────┴── n = s + 1 − first_step                                       piecewise: from knot to knot
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from manifest.checkpoint import Timeline
from trainer.recipe import TrainRecipe
from trainer.recipe_schedule import ScheduleRecipe


@dataclass(frozen=True)
class Curve:
    """A schedule over `steps` steps from `first_step` on; after them it stays where it is.

    start: the value before the first step of warm-up. decay_steps, decay_shape: how long `wsd` decays, and how (1-sqrt:
    Hägele et al., 2024). knots: n and value of each, in order of n; `hold`: each value until the next, instead of a
    line to it.
    """

    shape: str
    first_step: int
    warmup_steps: int
    steps: int
    peak: float
    end: float
    start: float = 0.0
    decay_steps: int = 0
    decay_shape: str = "linear"
    knots: tuple[tuple[int, float], ...] = ()
    hold: bool = False

    def rate(self, step: int) -> float:
        """The value at step `step`, counted from the start of the run."""
        n = step + 1 - self.first_step
        if n < self.warmup_steps:
            return self.start + (self._warm - self.start) * n / self.warmup_steps
        if self.shape == "constant":
            return self.peak
        if self.shape == "piecewise":
            return self._between_knots(n)
        begin = self.decay_begin
        done = min(max(n - begin, 0) / max(self.steps - begin, 1), 1.0)
        if self.shape == "wsd":
            return _lowered(self.decay_shape, self.peak, self.end, done)
        return _lowered(self.shape, self.peak, self.end, done)

    @property
    def decay_begin(self) -> int:
        """The last n at the peak. A decay that is as long as the span begins after warm-up."""
        return max(self.warmup_steps, self.steps - self.decay_steps) if self.shape == "wsd" else self.warmup_steps

    @property
    def _warm(self) -> float:
        """What warm-up leads to."""
        return self._between_knots(self.warmup_steps) if self.shape == "piecewise" else self.peak

    def _between_knots(self, n: int) -> float:
        places = [place for place, _ in self.knots]
        if self.hold:  # a knot after k steps is the value of the steps from the (k + 1)-th on
            return self.knots[max(bisect_right(places, n - 1) - 1, 0)][1]
        after = bisect_left(places, n)
        if after in (0, len(places)):
            return self.knots[min(after, len(places) - 1)][1]
        (left, low), (right, high) = self.knots[after - 1], self.knots[after]
        return low + (high - low) * (n - left) / (right - left)


def _lowered(shape: str, peak: float, end: float, done: float) -> float:
    """From peak to end, `done` of the way in time."""
    if shape == "linear":
        return peak + (end - peak) * done
    if shape == "cosine":
        return end + (peak - end) * (1 + math.cos(math.pi * done)) / 2
    assert shape == "1-sqrt"
    return end + (peak - end) * (1 - math.sqrt(done))


def curves(recipe: TrainRecipe, timeline: Timeline) -> tuple[Curve, ...]:
    """The learning rate over each segment of a run: that of its phase, whichever mixture it reads."""
    found = rate_curves(recipe, timeline.phase_steps())
    return tuple(found[segment.phase] for segment in timeline.order.segments)


def weight_decays(recipe: TrainRecipe, timeline: Timeline) -> tuple[Curve, ...]:
    """The weight decay over each segment of a run, likewise."""
    found = decay_curves(recipe, timeline.phase_steps())
    return tuple(found[segment.phase] for segment in timeline.order.segments)


def rate_curves(recipe: TrainRecipe, steps: Mapping[str, range]) -> dict[str, Curve]:
    """The learning rate of each phase, given its steps. A phase that continues another has the very same curve."""
    return _curves({name: phase.schedule for name, phase in recipe.phases.items()}, steps)


def decay_curves(recipe: TrainRecipe, steps: Mapping[str, range]) -> dict[str, Curve]:
    """The weight decay of each phase, given its steps: the optimizer's where the phase says none."""
    usual = recipe.optimizer.weight_decay
    own = {name: phase.weight_decay for name, phase in recipe.phases.items() if phase.weight_decay is not None}
    found = _curves(own, steps)
    return {
        name: found[name] if name in found else Curve("constant", steps[name].start, 0, len(steps[name]), usual, usual)
        for name in recipe.phases
    }


def _curves(schedules: Mapping[str, ScheduleRecipe], steps: Mapping[str, range]) -> dict[str, Curve]:
    found: dict[str, Curve] = {}
    for name, schedule in schedules.items():
        if schedule.continues is not None:
            found[name] = found[schedule.continues]
            continue
        end = max(phase.stop for phase in steps.values()) if schedule.span == "run" else steps[name].stop
        if schedule.through is not None:
            end = steps[schedule.through].stop
        found[name] = _curve(schedule, steps[name].start, end - steps[name].start)
    return found


def _curve(schedule: ScheduleRecipe, first_step: int, steps: int) -> Curve:
    assert schedule.shape is not None
    knots = tuple(
        (round(knot.place * steps) if knot.step is None else knot.step, knot.value) for knot in schedule.knots or ()
    )
    peak = schedule.peak if schedule.peak is not None else max(value for _, value in knots)
    end = knots[-1][1] if knots else peak
    return Curve(
        shape=schedule.shape,
        first_step=first_step,
        warmup_steps=schedule.warmup_steps or 0,
        steps=steps,
        peak=peak,
        end=end if schedule.end is None else schedule.end,
        start=schedule.start or 0.0,
        decay_steps=_decay_steps(schedule, steps),
        decay_shape=schedule.decay_shape or "linear",
        knots=knots,
        hold=schedule.between == "hold",
    )


def _decay_steps(schedule: ScheduleRecipe, steps: int) -> int:
    if schedule.decay_share is not None:
        return max(1, round(schedule.decay_share * steps))
    return schedule.decay_steps or 0


def warnings(recipe: TrainRecipe, timeline: Timeline) -> list[str]:
    """What of the schedules cannot happen in a run of this length."""
    steps = timeline.phase_steps()
    rates, decays = rate_curves(recipe, steps), decay_curves(recipe, steps)
    found: list[str] = []
    for name, phase in recipe.phases.items():
        if phase.schedule.continues is None:
            found += [f"phase {name!r}: {said}" for said in _warnings(rates[name], "learning rate")]
        if phase.weight_decay is not None and phase.weight_decay.continues is None:
            found += [f"phase {name!r}: {said}" for said in _warnings(decays[name], "weight decay")]
    return found


def _warnings(curve: Curve, what: str) -> Iterator[str]:
    if curve.warmup_steps > curve.steps:
        yield (
            f"{curve.warmup_steps} steps of warm-up, but its schedule has {curve.steps}: the {what} never reaches "
            f"{curve.peak}"
        )
    elif curve.shape == "wsd" and curve.warmup_steps + curve.decay_steps > curve.steps:
        yield (
            f"{curve.warmup_steps} steps of warm-up and {curve.decay_steps} of decay, but its schedule has "
            f"{curve.steps}: the {what} decays in {curve.steps - curve.warmup_steps}"
        )
    late = [place for place, _ in curve.knots if place > curve.steps]
    if late:
        yield f"a knot after {late[0]} steps, but its schedule has {curve.steps}: the {what} does not get there"
