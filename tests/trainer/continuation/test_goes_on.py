"""How a run goes on over a change of its mixture."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from tests.trainer.continuation.conftest import (
    Arm,
    assert_equal,
    assert_rows_are_of_the_views_read,
    blocks_read,
    changed,
    read_by_step,
)

from manifest.artifact import Opened, open_artifact
from manifest.sightings import sightings_of_document
from manifest.store import LocalStore
from trainer.continuation import continued
from trainer.fit import fit
from trainer.run import METRICS, read_run


@pytest.mark.slow
def test_a_run_killed_after_the_change_ends_as_if_it_had_not_been(arm: Arm, new: Opened) -> None:
    arm.train(3)
    arm.continue_with(new)
    through = arm.copy("through")
    through.train()
    for steps in (1, 3, 5):  # within the phase, to its end, beyond
        killed = arm.copy(f"killed-after-{steps}")
        killed.train(steps)
        with (killed.directory / METRICS).open("a") as rows:  # of steps after its checkpoint, as a kill leaves them
            rows.write(json.dumps({"step": 3 + steps, "loss": 0.0}) + '\n{"step"')
        killed.train()
        assert_equal(through, killed)


def test_schedules_and_the_reset_of_the_optimiser_stay_where_they_were(arm: Arm, new: Opened) -> None:
    arm.train(3)
    unchanged = arm.copy("unchanged")
    unchanged.train()
    arm.continue_with(new)
    arm.train()
    assert [row["lr"] for row in arm.rows()] == [row["lr"] for row in unchanged.rows()]
    assert [(row["phase"], row["tokens"]) for row in arm.rows()] == [
        (row["phase"], row["tokens"]) for row in unchanged.rows()
    ]
    assert arm.final().state["optimizer_steps"] == unchanged.final().state["optimizer_steps"] == 3
    assert [row["loss"] for row in arm.rows()][:3] == [row["loss"] for row in unchanged.rows()][:3]


def test_the_optimiser_is_not_reset_where_the_mixture_changes_within_a_phase_that_reset_it(
    arm: Arm, new: Opened
) -> None:
    arm.train(7)
    arm.continue_with(new)
    arm.train()
    assert arm.run.changes[0].step == 7
    assert arm.final().state["optimizer_steps"] == 3


def test_the_same_command_again_goes_on_and_so_does_the_one_that_began_it(
    arm: Arm, new: Opened, capsys: pytest.CaptureFixture[str]
) -> None:
    arm.train(3)
    options = replace(arm.options, continue_with=new.uri)
    run = arm.continue_with(new)
    assert continued(arm.store, run, new.uri, "r") == run
    arm.train(1)
    assert continued(arm.store, arm.run, new.uri, "r") == run == arm.run
    arm.train()
    for asked in (options, arm.options):  # both find it finished, and neither changes it
        assert fit(asked) == arm.store.where(run.checkpoint_path(9))
        assert read_run(arm.directory) == run
    assert "reads new-" in capsys.readouterr().err


def test_a_third_mixture_is_another_change(arm: Arm, old: Opened, new: Opened) -> None:
    third = changed(old, "third", config={"third": True})
    arm.train(2)
    arm.continue_with(new)
    arm.train(2)
    arm.continue_with(third)
    arm.train()
    assert [(change.step, change.mixture.name) for change in arm.run.changes] == [(2, "new"), (4, "third")]
    record = arm.final()
    assert {reference.name for reference in record.inputs.values()} == {"old", "new", "third"}
    mixtures = [arm.run.mixture_of(arm.run.timeline.step(step).segment).name for step in range(9)]
    assert mixtures == ["old"] * 2 + ["new"] * 2 + ["third"] * 5
    by_step = read_by_step(arm.directory, {"old": 1, "new": 2, "third": 3})
    assert_rows_are_of_the_views_read(arm.directory, by_step)
    assert_exposure_is_of(arm, by_step)


def assert_exposure_is_of(arm: Arm, by_step: list[Counter[str]]) -> None:
    """Asked of the last checkpoint alone, which finds its mixtures by itself."""
    last = arm.store.where(arm.run.checkpoint_path(9))
    total = sum(by_step, Counter[str]())
    for document, tokens in total.items():
        (run,) = sightings_of_document(last, document).runs
        assert [reads.tokens for reads in run.checkpoints] == [tokens]


def test_a_change_before_any_step_was_taken_replaces_the_one_before(arm: Arm, old: Opened, new: Opened) -> None:
    wrong = changed(new, "wrong", config={"wrong": True})
    arm.train(3)
    plain = arm.copy("plain").continue_with(new)
    arm.continue_with(wrong)
    run = arm.continue_with(new)
    assert run.timeline == plain.timeline
    assert [(change.step, change.mixture.name) for change in run.changes] == [(3, "new")]
    back = arm.continue_with(old)
    assert [(change.step, change.mixture.name) for change in back.changes] == [(3, "old")]
    read = blocks_read(back)
    assert sorted(read["a"]) == list(range(len(read["a"])))


def test_mixtures_of_one_name_stand_apart_in_a_checkpoint(arm: Arm, old: Opened) -> None:
    other = changed(old, "other", config={"cleaner": True})
    store = LocalStore(Path(old.uri).parent.parent)
    with store.draft("mixtures/second") as draft:  # as two builds of one recipe lie beside each other
        store.publish("mixtures/second", draft, other.manifest.model_copy(update={"name": "old"}))
    second = open_artifact(store.where("mixtures/second"))
    arm.train(3)
    arm.continue_with(second)
    arm.train()
    inputs = arm.final().inputs
    assert {reference.id for reference in inputs.values()} == {old.manifest.id, second.manifest.id}
    assert all(key.startswith("old-") for key in inputs)
    assert_exposure_is_of(arm, read_by_step_of(arm, [old, second]))


def read_by_step_of(arm: Arm, mixtures: list[Opened]) -> list[Counter[str]]:
    return read_by_step(arm.directory, {mixture.manifest.name: 1 for mixture in mixtures})


def test_the_data_of_the_former_mixture_is_not_needed_to_go_on(arm: Arm, old: Opened, new: Opened) -> None:
    arm.train(3)
    arm.continue_with(new)
    shutil.rmtree(Path(old.uri).parent.parent / "tokens" / "b")
    arm.train()
    assert arm.final().step == 9
