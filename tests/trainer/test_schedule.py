from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifest.artifact import Opened
from manifest.checkpoint import Timeline
from trainer.continuation import changed
from trainer.recipe import TrainRecipe
from trainer.schedule import Curve, curves, warnings
from trainer.timeline import make_timeline

ONE_PHASE = {"main": {"a": 8, "b": 4}}
TWO_PHASES = {"short": {"a": 8, "b": 4}, "long": {"a": 6}}


def test_btlms_schedule_has_its_published_ends() -> None:
    curve = Curve("linear", first_step=0, warmup_steps=95, steps=159_636, peak=0.012, end=1.0198e-4)
    assert curve.rate(0) == pytest.approx(0.012 / 95)
    assert curve.rate(94) == 0.012
    assert curve.rate(159_635) == pytest.approx(1.0198e-4)
    # At the change of length, by the published formula: peak + (end − peak) · (n − 95) / 159,541.
    assert curve.rate(119_727) == pytest.approx(0.012 + (1.0198e-4 - 0.012) * (119_728 - 95) / 159_541)


@given(
    warmup=st.integers(0, 30),
    after=st.integers(2, 200),
    first=st.integers(0, 50),
    shape=st.sampled_from(["linear", "cosine"]),
)
def test_a_curve_rises_to_its_peak_and_falls_to_its_end(warmup: int, after: int, first: int, shape: str) -> None:
    curve = Curve(shape, first, warmup, warmup + after, peak=1.0, end=0.1)
    rates = [curve.rate(first + n) for n in range(warmup + after)]
    assert all(rates[n] == pytest.approx((n + 1) / warmup) for n in range(warmup))
    assert rates[-1] == pytest.approx(0.1)
    falling = rates[max(warmup - 1, 0) :]
    assert all(later < earlier for earlier, later in itertools.pairwise(falling))
    assert curve.rate(first + warmup + after + 10) == pytest.approx(0.1)


def test_a_cosine_is_half_way_down_in_the_middle() -> None:
    curve = Curve("cosine", first_step=0, warmup_steps=0, steps=100, peak=1.0, end=0.0)
    assert curve.rate(49) == pytest.approx(0.5)
    assert curve.rate(24) == pytest.approx((1 + math.cos(math.pi / 4)) / 2)


def test_a_constant_stays_at_its_peak() -> None:
    curve = Curve("constant", first_step=0, warmup_steps=4, steps=10, peak=2.0, end=2.0)
    assert [curve.rate(step) for step in (0, 3, 4, 9, 50)] == [0.5, 2.0, 2.0, 2.0, 2.0]


def two_phases(make_mixture: Callable[..., Opened], span: str) -> tuple[TrainRecipe, Timeline]:
    schedule = {"shape": "linear", "warmup_steps": 2, "peak": 1.0, "end": 0.0, "span": span}
    recipe = TrainRecipe.model_validate(
        {
            "name": "two",
            "architecture": {
                "position": "alibi",
                "feedforward": "gelu",
                "norm": "rmsnorm",
                "bias": False,
                "tied": True,
            },
            "size": "tiny",
            "phases": {
                "short": {"seq_len": 16, "tokens_per_step": 64, "schedule": schedule},
                "long": {"seq_len": 32, "tokens_per_step": 64, "schedule": {"continue": "short"}},
            },
        }
    )
    mixture = make_mixture(TWO_PHASES)
    return recipe, make_timeline(mixture.manifest, recipe, where="r", seed=0, tokens=None)


def test_span_run_goes_to_the_end_of_the_run_and_continue_takes_the_same_curve(
    make_mixture: Callable[..., Opened],
) -> None:
    recipe, timeline = two_phases(make_mixture, "run")
    short, long = curves(recipe, timeline)
    assert short == long
    assert short.steps == timeline.total_steps == 18
    assert long.rate(17) == pytest.approx(0.0)


def test_span_phase_ends_with_its_phase(make_mixture: Callable[..., Opened]) -> None:
    recipe, timeline = two_phases(make_mixture, "phase")
    short, _ = curves(recipe, timeline)
    assert short.steps == timeline.steps(0) == 12


@pytest.mark.parametrize("span", ["phase", "run"])
@pytest.mark.parametrize("step", [4, 12, 15])
def test_another_mixture_leaves_the_rate_of_every_step_as_it_was(
    make_mixture: Callable[..., Opened], span: str, step: int
) -> None:
    recipe, timeline = two_phases(make_mixture, span)
    (old,) = {segment.mixture for segment in timeline.order.segments}
    former, new = (make_mixture(TWO_PHASES, name=name).manifest for name in ("mix", "new"))
    assert former.id == old
    after = changed(timeline, step, new, recipe.phases, {old: former})

    def rates(timeline: Timeline) -> list[float]:
        of_segment = curves(recipe, timeline)
        return [of_segment[timeline.step(s).segment].rate(s) for s in range(timeline.total_steps)]

    assert rates(after) == rates(timeline)


def test_a_warm_up_that_is_longer_than_its_span_is_warned_of(make_mixture: Callable[..., Opened]) -> None:
    recipe, timeline = two_phases(make_mixture, "phase")
    assert warnings(recipe, timeline) == []
    short = recipe.phases["short"]
    schedule = short.schedule.model_copy(update={"warmup_steps": 13})
    slow = recipe.model_copy(
        update={"phases": {**recipe.phases, "short": short.model_copy(update={"schedule": schedule})}}
    )
    (warning,) = warnings(slow, timeline)
    assert "'short'" in warning
