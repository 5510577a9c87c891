"""WSD, piecewise, re-warm-up, weight decay and what spans several phases: closed forms, and the papers' numbers."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.recipe import TrainRecipe
from trainer.schedule import Curve, decay_curves, rate_curves

ARCHITECTURE = {"position": "alibi", "feedforward": "gelu", "norm": "rmsnorm", "bias": False, "tied": True}


def recipe(**phases: dict[str, Any]) -> TrainRecipe:
    """Phases of nothing but their schedules."""
    pace = {"seq_len": 16, "tokens_per_step": 64}
    return TrainRecipe.model_validate(
        {
            "name": "r",
            "architecture": ARCHITECTURE,
            "size": "tiny",
            "phases": {name: pace | fields for name, fields in phases.items()},
        }
    )


def steps(**counts: int) -> dict[str, range]:
    ends = list(itertools.accumulate(counts.values()))
    return {name: range(end - count, end) for (name, count), end in zip(counts.items(), ends, strict=True)}


def rates(schedule: dict[str, Any], count: int) -> list[float]:
    curve = rate_curves(recipe(main={"schedule": schedule}), steps(main=count))["main"]
    return [curve.rate(step) for step in range(count)]


@pytest.mark.parametrize(
    ("shape", "of_the_way"),
    [
        ("linear", lambda done: 1 - done),
        ("cosine", lambda done: (1 + math.cos(math.pi * done)) / 2),
        ("1-sqrt", lambda done: 1 - math.sqrt(done)),
    ],
)
def test_wsd_is_flat_and_then_decays_in_its_shape(shape: str, of_the_way: Any) -> None:
    wsd = {"shape": "wsd", "warmup_steps": 5, "peak": 1.0, "end": 0.2, "decay_share": 0.2, "decay_shape": shape}
    found = rates(wsd, 50)
    assert found[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert found[4:40] == [1.0] * 36
    assert found[40:] == pytest.approx([0.2 + 0.8 * of_the_way(k / 10) for k in range(1, 11)])


@given(warmup=st.integers(0, 20), decay=st.integers(1, 40), count=st.integers(1, 60))
def test_wsd_falls_in_equal_steps_to_its_end_however_little_room_there_is(warmup: int, decay: int, count: int) -> None:
    curve = Curve("wsd", 0, warmup, warmup + count, peak=1.0, end=0.1, decay_steps=decay)
    found = [curve.rate(step) for step in range(warmup, warmup + count)]
    down = min(decay, count)
    assert found[: count - down] == [1.0] * (count - down)
    assert found[count - down :] == pytest.approx([1 - 0.9 * k / down for k in range(1, down + 1)])


def test_a_share_of_decay_is_as_long_as_as_many_steps() -> None:
    wsd = {"shape": "wsd", "peak": 1.0, "end": 0.0}
    assert rates(wsd | {"decay_share": 0.25}, 80) == rates(wsd | {"decay_steps": 20}, 80)


def test_piecewise_goes_in_lines_through_its_knots() -> None:
    knots = [{"share": 0.0, "value": 0.0}, {"share": 0.5, "value": 1.0}, {"share": 1.0, "value": 0.5}]
    found = rates({"shape": "piecewise", "knots": knots}, 20)
    assert found[:10] == pytest.approx([k / 10 for k in range(1, 11)])
    assert found[10:] == pytest.approx([1 - 0.05 * k for k in range(1, 11)])


def test_two_knots_at_one_place_are_a_jump_after_it() -> None:
    knots = [(0, 1.0), (4, 1.0), (4, 0.25), (8, 0.25)]
    spelt = [{"step": step, "value": value} for step, value in knots]
    assert rates({"shape": "piecewise", "knots": spelt}, 8) == [1.0] * 4 + [0.25] * 4


def test_before_the_first_and_after_the_last_knot_their_values_hold() -> None:
    knots = [{"step": 3, "value": 1.0}, {"step": 5, "value": 2.0}]
    assert rates({"shape": "piecewise", "knots": knots}, 8) == [1.0, 1.0, 1.0, 1.5, 2.0, 2.0, 2.0, 2.0]


def test_warm_up_leads_to_where_piecewise_is() -> None:
    knots = [{"step": 0, "value": 1.0}, {"step": 8, "value": 0.0}]
    found = rates({"shape": "piecewise", "warmup_steps": 4, "knots": knots}, 8)
    assert found == pytest.approx([0.125, 0.25, 0.375, 0.5, 0.375, 0.25, 0.125, 0.0])


def test_warm_up_may_start_from_a_value_above_or_below_its_peak() -> None:
    schedule = {"shape": "constant", "warmup_steps": 4, "peak": 1.0}
    assert rates(schedule | {"start": 0.5}, 5) == [0.625, 0.75, 0.875, 1.0, 1.0]
    assert rates(schedule | {"start": 2.0}, 5) == [1.75, 1.5, 1.25, 1.0, 1.0]


def test_ptwd_holds_each_weight_decay_for_its_third() -> None:
    # SlimPajama-DC's 7B: none, then 0.5, then 0.1; where they change is not published.
    third = [{"share": 0, "value": 0.0}, {"share": 1 / 3, "value": 0.5}, {"share": 2 / 3, "value": 0.1}]
    decay = {"shape": "piecewise", "between": "hold", "knots": third}
    learned = recipe(main={"schedule": {"shape": "constant", "peak": 1.0}, "weight_decay": decay})
    curve = decay_curves(learned, steps(main=9))["main"]
    assert [curve.rate(step) for step in range(9)] == [0.0] * 3 + [0.5] * 3 + [0.1] * 3


def test_phases_without_a_weight_decay_have_the_optimizers() -> None:
    constant = {"schedule": {"shape": "constant", "peak": 1.0}}
    learned = recipe(none=constant | {"weight_decay": 0}, usual=constant, much=constant | {"weight_decay": 0.5})
    found = decay_curves(learned, steps(none=2, usual=2, much=2))
    assert [found[name].rate(step) for name, step in zip(learned.phases, (1, 3, 5), strict=True)] == [0.0, 0.1, 0.5]


def crystal() -> TrainRecipe:
    """Its published schedules: a decay that is planned over two phases, re-warmed to where it was."""
    linear = {"shape": "linear", "warmup_steps": 86}
    return recipe(
        phase1={"schedule": linear | {"peak": 0.012, "end": 1.2408e-4, "through": "phase2"}},
        phase2={"schedule": linear | {"peak": 0.0087825, "end": 1.3679e-4}},
        phase3={"schedule": linear | {"peak": 0.002, "end": 2e-4}},
    )


def test_crystals_first_phase_stops_where_its_second_begins_to_decay() -> None:
    count = steps(phase1=79_721, phase2=214_387, phase3=27_728)
    found = rate_curves(crystal(), count)
    assert found["phase1"].steps == 294_108
    stopped = found["phase1"].rate(79_720)
    rewarmed = found["phase2"].rate(79_721 + 85)
    assert stopped == pytest.approx(0.0087825, rel=1e-3)
    assert rewarmed == 0.0087825
    assert found["phase2"].rate(79_721) == pytest.approx(0.0087825 / 86)
    assert found["phase2"].rate(294_107) == pytest.approx(1.3679e-4)
    assert found["phase3"].rate(294_108 + 27_727) == pytest.approx(2e-4)


def test_through_the_last_phase_is_the_span_of_the_run() -> None:
    linear = {"shape": "linear", "peak": 1.0, "end": 0.0}
    count = steps(one=3, two=4)
    second = {"schedule": {"continue": "one"}}
    through = recipe(one={"schedule": linear | {"through": "two"}}, two=second)
    spanning = recipe(one={"schedule": linear | {"span": "run"}}, two=second)
    assert rate_curves(through, count) == rate_curves(spanning, count)
