"""Spikes of the loss: the limit against numpy, and runs that report, skip and go back."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.trainer.conftest import entered, never, stop_after

from manifest.artifact import Opened, open_artifact
from manifest.checkpoint import Checkpoint
from manifest.exposure import exposures
from manifest.mixture import Mixture
from manifest.store import LocalStore
from trainer.audit import audit
from trainer.data.loader import order_streams
from trainer.engine import MOMENTS, Engine
from trainer.events import events
from trainer.launch import Workers, launch
from trainer.loop import train
from trainer.model.decoder import build
from trainer.progress import spiked
from trainer.recipe import EngineRecipe, TrainRecipe
from trainer.run import METRICS, Run, newest, read_run
from trainer.spike_met import resumed
from trainer.spikes import Spike, SpikesRecipe, SpikeWatch, merged, rewinds_in_a_row, spike_limit
from trainer.summary import passed_over, summary

from .conftest import recipe_fields
from .test_engine import OPTIMIZER, SHAPE, batches

pytestmark = pytest.mark.usefixtures("process_group", "alone_as_among_many")

# At a rate that teaches nothing, about every other step is above the median of those before it.
SCHEDULE = {"shape": "constant", "warmup_steps": 0, "peak": 1e-9}
SPIKES = {"window": 8, "factor": 1e-6}

Prepare = Callable[..., tuple[LocalStore, Run]]


@pytest.fixture
def prepare(tmp_path: Path, make_mixture: Callable[..., Opened], make_recipe: Callable[..., Path]) -> Prepare:
    mixture = make_mixture({"main": {"a": 10, "b": 6}})

    def make(name: str, *, zero: int = 1, **spikes: Any) -> tuple[LocalStore, Run]:
        phases = {"main": {"seq_len": 16, "tokens_per_step": 64, "schedule": SCHEDULE}}
        save = {"every_tokens": 256, "keep_full": 3}
        recipe = make_recipe(
            phases=phases, spikes=SPIKES | spikes, save=save, engine={"zero": zero, "micro_batch_tokens": 64}
        )
        store = LocalStore(tmp_path / name)
        return entered(store, recipe, mixture)

    return make


def rows(store: LocalStore, run: Run) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (store.root / run.path / METRICS).read_text().splitlines()]


def spikes(store: LocalStore, run: Run) -> list[dict[str, Any]]:
    return [event for event in events(store.root / run.path) if event["event"] == "spike"]


def final(store: LocalStore, run: Run) -> Checkpoint:
    found = store.manifest(run.checkpoint_path(run.timeline.total_steps))
    assert isinstance(found, Checkpoint)
    return found


def judge(watch: SpikeWatch, step: int, loss: float, *, segment: int = 0) -> Spike | None:
    return watch.judge(step, loss, segment=segment)


def newest_step(store: LocalStore, run: Run) -> int:
    found = newest(store, run)
    assert found is not None
    assert isinstance(found.manifest, Checkpoint)
    return found.manifest.step


def to_the_bit(record: Checkpoint) -> tuple[Any, ...]:
    return record.weights, record.moments, record.state, record.timeline


def test_the_limit_is_the_median_and_a_multiple_of_the_distance_from_it() -> None:
    losses = np.random.default_rng(0).normal(3.0, 0.2, 300).tolist()
    recipe = SpikesRecipe(window=64, factor=5)
    last = np.array(losses[-64:])
    mad = np.median(np.abs(last - np.median(last)))
    assert spike_limit(losses, recipe) == pytest.approx(np.median(last) + 5 * 1.4826 * mad)


def test_there_is_no_limit_before_a_quarter_of_the_window_and_losses_that_do_not_vary_have_one_above_them() -> None:
    recipe = SpikesRecipe(window=64, factor=5)
    assert spike_limit([2.0] * 15, recipe) is None
    assert spike_limit([2.0] * 16, recipe) == pytest.approx(2.0 * 1.05)


def test_a_loss_that_stays_on_another_level_is_no_spike_for_ever() -> None:
    watch = SpikeWatch.resumed(SpikesRecipe(window=32), None)
    found = [judge(watch, step, loss) for step, loss in enumerate([2.0] * 32 + [4.0] * 32)]
    assert [spike is not None for spike in found] == [False] * 32 + [True] * 16 + [False] * 16


def test_another_phase_or_mixture_begins_without_losses() -> None:
    watch = SpikeWatch.resumed(SpikesRecipe(window=8), None)
    assert [judge(watch, step, 2.0) for step in range(8)] == [None] * 8
    assert judge(watch, 8, 9.0, segment=1) is None


def test_a_checkpoint_of_before_segments_were_noted_has_losses_of_the_one_that_it_read(prepare: Prepare) -> None:
    store, run = prepare("out")
    train(store, run, stop_after(5))
    found = store.manifest(run.checkpoint_path(5))
    assert isinstance(found, Checkpoint)
    state = dict(found.state["spikes"])
    assert state.pop("segment") == 0
    before = found.model_copy(update={"state": found.state | {"spikes": state}})
    assert resumed(run, before) == resumed(run, found)


def test_rewinds_in_a_row_are_those_within_a_window_of_what_was_passed_over() -> None:
    recipe = SpikesRecipe(window=50, before=5, after=10)
    rewinds = ((95, 111), (300, 311), (316, 332))  # spikes at 100, 300 and 321
    assert [rewinds_in_a_row(rewinds, step, 0, recipe) for step in (340, 381, 382)] == [2, 2, 0]
    assert rewinds_in_a_row(rewinds, 340, 311, recipe) == 1  # what ended before this mixture began does not count
    assert rewinds_in_a_row(rewinds[:1], 130, 0, recipe) == 1


def test_ranges_of_steps_that_meet_are_one() -> None:
    assert merged([(5, 7), (1, 2), (2, 3), (6, 9)]) == ((1, 3), (5, 9))


def test_only_what_changes_a_run_makes_it_another() -> None:
    plain, *others = (
        TrainRecipe.model_validate(recipe_fields(**fields)).identified()
        for fields in ({}, {"spikes": {"factor": 3}}, {"spikes": {"action": "skip"}})
    )
    assert [other == plain for other in others] == [True, False]
    assert "spikes" not in plain


def test_the_norm_of_a_gradient_has_a_limit_of_its_own_and_is_only_reported_unless_the_recipe_gives_its_factor() -> (
    None
):
    norms = [1.0] * 8 + [1.4] + [1.0] * 3
    for given, limit, action in ((None, 1.32, "report"), (10.0, 1.1, "skip")):
        recipe = SpikesRecipe.model_validate({"action": "skip", "window": 8, "gradient_factor": given})
        watch = SpikeWatch.resumed(recipe, None)
        found = [watch.judge(step, 2.0, norm, segment=0) for step, norm in enumerate(norms)]
        assert [spike is not None for spike in found] == [norm > 1 for norm in norms]
        assert found[8] == Spike(pytest.approx(limit), action, of="gradient")  # type: ignore[arg-type]
    both = watch.judge(12, 9.0, 9.0, segment=0)
    assert both is not None
    assert both.of == "loss"


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_a_step_that_is_held_changes_nothing(stage: int) -> None:
    first, held, last = batches()
    through, skipping = (
        Engine(build(SHAPE, seed=0), OPTIMIZER, EngineRecipe.model_validate({"zero": stage})) for _ in range(2)
    )
    for engine in (through, skipping):
        engine.step(first, 0.01)
    skipping.accumulate(held, 0.01)
    assert skipping.update(lambda norm: norm > 0) > 0
    for engine in (through, skipping):
        engine.step(last, 0.01)
    assert skipping.optimizer_steps() == through.optimizer_steps() == 2
    for name in through.trained():
        for moment in (None, *MOMENTS):
            assert torch.equal(skipping.gather(name, moment), through.gather(name, moment)), (name, moment)
    through.close()
    skipping.close()


def test_a_spike_is_reported_with_what_its_step_read_and_is_learned(prepare: Prepare) -> None:
    store, run = prepare("out")
    train(store, run, never)
    losses = [row["loss"] for row in rows(store, run)]
    recipe = run.recipe.spikes
    limits = {step: spike_limit(losses[:step], recipe) for step in range(len(losses))}
    expected = {step: limit for step, limit in limits.items() if limit is not None and losses[step] > limit}
    assert {event["step"]: event["limit"] for event in spikes(store, run)} == expected != {}
    assert final(store, run).state["optimizer_steps"] == run.timeline.total_steps
    event = spikes(store, run)[0]
    header, *table = (store.root / run.path / event["table"]).read_text().splitlines()
    audited_header, *audited = audit(store.root / run.path, event["step"])
    assert header == f"loss\t{audited_header}"
    assert sorted(line.split("\t", 1)[1] for line in table) == sorted(audited)
    by_window = [float(line.split("\t", 1)[0]) for line in table]
    assert by_window == sorted(by_window, reverse=True)
    windows = {line.split("\t")[1]: loss for line, loss in zip(table, by_window, strict=True)}
    assert np.mean(list(windows.values())) == pytest.approx(event["loss"], abs=1e-3)
    assert event["worst"][0]["documents"][0] in spiked(event)


def test_a_skipped_step_is_read_and_not_learned_also_where_the_run_was_stopped(prepare: Prepare) -> None:
    through, stopped = prepare("through", action="skip"), prepare("stopped", action="skip")
    train(*through, never)
    train(*stopped, stop_after(7))
    train(*stopped, never)
    assert to_the_bit(final(*stopped)) == to_the_bit(final(*through))
    skipped = {row["step"] for row in rows(*through) if row.get("skipped")}
    assert skipped == {event["step"] for event in spikes(*through)} != set()
    record = final(*through)
    assert {step for first, stop in record.timeline.skipped for step in range(first, stop)} == skipped
    assert record.state["optimizer_steps"] == record.step - len(skipped)


def test_documents_of_a_skipped_step_are_not_seen_in_it(prepare: Prepare) -> None:
    store, run = prepare("out", action="skip")
    train(store, run, never)
    record = final(store, run)
    mixture = open_artifact(store.where(run.path) + "/" + run.mixture.uri)
    assert isinstance(mixture.manifest, Mixture)
    streams = order_streams(mixture, record.timeline, [])
    learned, planned = (
        {exposure.step for n in range(60) for exposure in exposures(timeline, streams, f"a/{n}")}
        for timeline in (record.timeline, run.timeline)
    )
    skipped = {event["step"] for event in spikes(store, run)}
    assert planned & skipped
    assert learned == planned - skipped


def test_a_run_goes_back_and_past_the_windows_of_a_spike_also_where_it_was_stopped(prepare: Prepare) -> None:
    settings = {"action": "rewind", "before": 1, "after": 1, "rewinds": 100}
    through, stopped = prepare("through", **settings), prepare("stopped", **settings)
    train(*through, never)
    train(*stopped, stop_after(9))
    train(*stopped, never)
    assert to_the_bit(final(*stopped)) == to_the_bit(final(*through))
    store, run = through
    found = spikes(store, run)
    assert found
    for event in found:
        checkpoint, (first, stop) = event["to"], event["skipped"]
        assert checkpoint % 4 == 0
        assert checkpoint <= event["step"]
        assert first == max(checkpoint, event["step"] - 1)
        assert stop == min(event["step"] + 2, run.timeline.total_steps)
    passed = read_run(store.root / run.path).skipped
    assert passed == tuple(tuple(event["skipped"]) for event in found)
    passed = merged(passed)
    assert final(store, run).timeline.skipped == passed
    steps = {step for first, stop in passed for step in range(first, stop)}
    assert [row["step"] for row in rows(store, run)] == [s for s in range(run.timeline.total_steps) if s not in steps]
    assert final(store, run).state["optimizer_steps"] == run.timeline.total_steps - len(steps)


def test_after_some_rewinds_in_a_row_spikes_are_learned_also_where_the_run_was_stopped(prepare: Prepare) -> None:
    settings = {"action": "rewind", "before": 0, "after": 0, "rewinds": 2}
    through, stopped = prepare("through", **settings), prepare("stopped", **settings)
    train(*through, never)
    train(*stopped, stop_after(9))
    train(*stopped, never)
    assert to_the_bit(final(*stopped)) == to_the_bit(final(*through))
    back, again, *reported = spikes(*through)
    assert [event["action"] for event in (back, again, *reported)] == ["rewind"] * 2 + ["report"] * len(reported)
    assert {event["after_rewinds"] for event in reported} == {2}
    assert "learned, after 2 rewinds in a row" in spiked(reported[0])
    learned = {row["step"] for row in rows(*through)}
    assert learned >= {event["step"] for event in reported} != set()
    assert len(learned) == final(*through).step - 2


def test_the_summary_says_how_many_steps_were_passed_over_and_where(prepare: Prepare) -> None:
    store, run = prepare("out", action="skip")
    train(store, run, never)
    record = final(store, run)
    steps = [str(step) for first, stop in record.timeline.skipped for step in range(first, stop)]
    (line,) = [line for line in summary(store.root / run.path, record) if "spikes" in line]
    assert f"{len(steps)} of 16 steps were not learned" in line
    assert line.split("spikes: ")[1].split(" ")[0] == steps[0]
    many = record.timeline.model_copy(update={"skipped": ((0, 1), (2, 5), (6, 7), (8, 9), (10, 11), (12, 14))})
    assert passed_over(many).endswith(
        "0 (main), 2 to 4 (main), 6 (main), 8 (main), 10 (main), and 1 more places, which the checkpoint has "
        "(timeline.skipped)"
    )


def test_a_run_that_is_asked_to_stop_among_steps_that_it_passes_over_stops_there(prepare: Prepare) -> None:
    store, run = prepare("out", action="rewind")
    run = run.model_copy(update={"skipped": ((4, 12),)})
    train(store, run, stop_after(6))
    assert newest_step(store, run) == 6


@pytest.mark.parametrize("zero", [0, 1])
def test_a_step_with_a_steep_gradient_is_skipped_and_names_what_it_read(prepare: Prepare, zero: int) -> None:
    store, run = prepare("out", zero=zero, action="skip", factor=1e6, gradient_factor=1e-6)
    train(store, run, never)
    made = rows(store, run)
    norms, recipe = [row["grad_norm"] for row in made], run.recipe.spikes
    limits = {step: spike_limit(norms[:step], recipe, 1e-6) for step in range(len(norms))}
    expected = {step: limit for step, limit in limits.items() if limit is not None and norms[step] > limit}
    found = spikes(store, run)
    assert {event["step"]: event["limit"] for event in found} == pytest.approx(expected) != {}
    assert {row["step"] for row in made if row.get("skipped")} == expected.keys()
    assert final(store, run).state["optimizer_steps"] == run.timeline.total_steps - len(expected)
    assert "the gradient's norm" in spiked(found[0])
    assert (store.root / run.path / found[0]["table"]).is_file()


@pytest.mark.slow
def test_two_workers_skip_the_steps_that_one_skips_and_name_the_same_windows(prepare: Prepare) -> None:
    alone, together = (prepare(name, action="skip") for name in ("alone", "together"))
    train(*alone, never)
    launch(Workers(None, 2), *together, tick=lambda: None, asked=never)
    one, two = spikes(*alone), spikes(*together)
    assert [event["step"] for event in two] == [event["step"] for event in one] != []
    assert final(*together).timeline.skipped == final(*alone).timeline.skipped
    assert final(*together).state["optimizer_steps"] == final(*alone).state["optimizer_steps"]
    for event, other in zip(two, one, strict=True):
        assert [worst["documents"] for worst in event["worst"]] == [worst["documents"] for worst in other["worst"]]
        assert event["loss"] == pytest.approx(other["loss"], rel=1e-5)
