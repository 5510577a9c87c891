"""What a run does not go on with, and what it warns of."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from tests.trainer.conftest import TWO_LENGTHS
from tests.trainer.continuation.conftest import EVERY_STEP, NEW, Arm, MakeMixture, MakeRecipe, changed

from manifest.artifact import Opened
from manifest.errors import InputError, NotAnArtifact, RecipeError, WrongArtifact
from manifest.mixture import Mixture
from manifest.record import Reference
from manifest.store import LocalStore
from trainer.continuation import continued
from trainer.fit import FitOptions, fit
from trainer.launch import Workers
from trainer.run import newest, read_run
from trainer.sizes import resolve


def test_another_tokenizer_is_refused(arm: Arm, new: Opened) -> None:
    manifest = new.manifest
    assert isinstance(manifest, Mixture)
    other = changed(new, "other", tokenizer=manifest.tokenizer.model_copy(update={"digest": "1"}))
    arm.train(3)
    with pytest.raises(WrongArtifact, match=r"other-\w+ has another tokenizer \(1\) than old-\w+ \(0\)"):
        arm.continue_with(other)
    assert read_run(arm.directory).changes == ()


def test_the_command_again_with_a_mixture_of_another_tokenizer_is_refused_and_changes_nothing(
    arm: Arm, old: Opened
) -> None:
    manifest = old.manifest
    assert isinstance(manifest, Mixture)
    other = changed(old, "other", tokenizer=manifest.tokenizer.model_copy(update={"digest": "1"}))
    arm.train(3)
    with pytest.raises(WrongArtifact, match=r"run mine reads mixture old-\w+, not other-\w+; give --mixture"):
        fit(replace(arm.options, mixture=other.uri))
    assert read_run(arm.directory) == arm.run


def test_other_blocks_are_refused(arm: Arm, make_mixture: MakeMixture) -> None:
    wide = make_mixture(NEW, name="wide", block_tokens=128)
    arm.train(3)
    with pytest.raises(
        WrongArtifact, match=r"wide-\w+ has blocks of 128 tokens; run mine reads blocks of 64, as in old-"
    ):
        arm.continue_with(wide)


def test_other_phases_are_refused(arm: Arm, make_mixture: MakeMixture) -> None:
    arm.train(3)
    with pytest.raises(RecipeError, match=r"recipe.yaml: phase 'short' is not in the mixture \(mixture one-\w+ has"):
        arm.continue_with(make_mixture({"main": {"a": 4}}, name="one"))


def test_a_run_that_is_not_there_is_refused_and_leaves_nothing(arm: Arm, new: Opened) -> None:
    with pytest.raises(NotAnArtifact, match=r"runs/mine is none; the runs there are none\. Give the recipe"):
        fit(replace(arm.options, continue_with=new.uri))
    assert not arm.directory.exists()
    arm.train(1)
    with pytest.raises(NotAnArtifact, match="the runs there are mine"):
        fit(replace(arm.options, name=None, continue_with=new.uri))


def test_a_run_without_a_full_checkpoint_is_refused(arm: Arm, new: Opened) -> None:
    arm.train(1)
    shutil.rmtree(arm.store.root / arm.run.checkpoint_path(1))
    with pytest.raises(InputError, match="run mine has no full checkpoint to go on from"):
        arm.continue_with(new)


def test_a_finished_run_is_refused(arm: Arm, new: Opened) -> None:
    arm.train()
    with pytest.raises(InputError, match=r"run mine is finished \(9 steps\)"):
        arm.continue_with(new)


def test_the_mixture_that_it_reads_already_changes_nothing(
    arm: Arm, old: Opened, capsys: pytest.CaptureFixture[str]
) -> None:
    arm.train(3)
    before = arm.run
    assert arm.continue_with(old) == before
    assert "reads old-" in capsys.readouterr().err


def test_a_mixture_that_is_none_is_refused(arm: Arm, tmp_path: Path) -> None:
    arm.train(1)
    with pytest.raises(NotAnArtifact, match="is not a published artifact"):
        continued(arm.store, arm.run, str(tmp_path / "nowhere"), "r")


def test_a_run_whose_last_steps_all_begin_within_a_block_is_refused(
    tmp_path: Path, old: Opened, new: Opened, make_recipe: MakeRecipe, process_group: None
) -> None:
    # 17 blocks of 4 windows, 3 per step: of the long phase's 5 blocks, the last step begins within the last block.
    odd = {name: {**phase, "seq_len": 16, "tokens_per_step": 48} for name, phase in TWO_LENGTHS.items()}
    recipe = resolve(make_recipe(phases=odd, save=EVERY_STEP), None)
    store = LocalStore(tmp_path / "runs")
    arm = Arm(FitOptions(recipe, old.uri, store.uri, Workers(None, 1), name="mine"), store)
    total = arm.run.timeline.total_steps
    arm.train(total - 1)
    with pytest.raises(InputError, match=rf"no step from {total - 1} to its end \({total}\) begins with a block of 64"):
        arm.continue_with(new)


def test_weights_beyond_the_newest_full_checkpoint_are_refused(arm: Arm, new: Opened) -> None:
    arm.train(3)
    record = newest(arm.store, arm.run)
    assert record is not None
    later = arm.store.root / arm.run.checkpoint_path(4)
    shutil.copytree(record.directory, later)
    weights = record.manifest.model_copy(update={"full": False, "moments": (), "step": 4}).identified()
    (later / "manifest.json").write_bytes(weights.to_json())
    with pytest.raises(InputError, match=r"a later one of weights alone.*remove runs/mine/checkpoints/00000004"):
        arm.continue_with(new)


def test_a_checkpoint_of_another_mixture_is_refused_naming_both(arm: Arm, new: Opened) -> None:
    arm.train(2)
    stale = arm.copy("stale")
    stale.train(3)
    arm.continue_with(new)
    # A worker that outlived its command, and published after the change.
    shutil.copytree(stale.store.root / stale.run.checkpoint_path(5), arm.store.root / arm.run.checkpoint_path(5))
    with pytest.raises(
        WrongArtifact, match=r"up to step 5 it has read old-\w+; the run's order is another, of old-\w+, then new-"
    ):
        arm.train()


def test_other_held_out_documents_and_fewer_blocks_than_are_left_are_warned_of(
    arm: Arm, make_mixture: MakeMixture, capsys: pytest.CaptureFixture[str]
) -> None:
    small = make_mixture({"short": {"a": 2}, "long": {"c": 9}}, name="small")
    held = changed(small, "held", heldout=Reference(kind="heldout", name="all", id="1", uri="../../heldout/all"))
    arm.train(3)
    arm.continue_with(held)
    said = capsys.readouterr().err
    assert "streams that go on: a; that begin: c; that it does not have: b" in said
    assert "phase 'short' has 6 blocks left and held-" in said
    assert "read 3.00 times as often as it plans" in said
    assert "phase 'long'" not in said.split("warning", 1)[1]
    assert "holds out other documents than before" in said
