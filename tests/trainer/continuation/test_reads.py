"""What a run reads before and after its mixture changes."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest
from tests.trainer.conftest import SCHEDULE
from tests.trainer.continuation.conftest import (
    Arm,
    MakeMixture,
    MakeRecipe,
    assert_equal,
    assert_rows_are_of_the_views_read,
    blocks_read,
    changed,
    read_by_step,
)
from tests.trainer.test_fit import finished, losses, published, start

from manifest.artifact import Opened, open_artifact, relative_uri
from manifest.errors import NotAnArtifact
from manifest.mixture import Mixture
from manifest.record import Artifact
from manifest.sightings import sightings_of_document
from manifest.store import LocalStore
from trainer.audit import audit
from trainer.fit import FitOptions, fit
from trainer.launch import Workers
from trainer.packs import open_packs
from trainer.sizes import resolve


def test_audit_and_exposure_are_what_the_loaders_read_over_a_change_on_another_number_of_workers(
    tmp_path: Path, make_mixture: MakeMixture, make_recipe: MakeRecipe, process_group: None
) -> None:
    old = make_mixture({"main": {"a": 45, "b": 15}}, name="old", tokens=600)
    new = make_mixture({"main": {"a": 2, "c": 3}}, name="new", tokens=600)
    # 3 windows per step, 4 per block: only each 4th step begins with a block.
    phase = {"seq_len": 16, "tokens_per_step": 48, "schedule": SCHEDULE}
    recipe = make_recipe(phases={"main": phase}, save={"every_tokens": 48 * 15, "keep_full": 1})
    store = LocalStore(tmp_path / "store")
    arm = Arm(FitOptions(resolve(recipe, None), old.uri, store.uri, Workers(None, 1), name="mine"), store)
    arm.train(18)

    flags = ("--name", "mine", "--workers", "local:2", "--continue-with", new.uri)
    last = published(finished(start(recipe, old, store.root, *flags)))
    assert last.step == 80
    assert len(losses(store.root)) == 80
    assert [change.step for change in arm.run.changes] == [20]

    by_step = read_by_step(arm.directory, {"old": 1, "new": 2})
    assert_rows_are_of_the_views_read(arm.directory, by_step)
    for step in range(80):
        _, *lines = audit(arm.directory, step)
        spans = Counter[str]()
        for line in lines:
            *_, begin, stop, document = line.split("\t")
            spans[document] += int(stop) - int(begin)
        assert spans == by_step[step]
    assert_exposure_is(store.root, by_step)


def test_packed_phases_go_on_with_the_packs_of_the_new_mixture(
    tmp_path: Path, make_mixture: MakeMixture, make_recipe: MakeRecipe, process_group: None
) -> None:
    old, new = (
        make_mixture({"main": {"a": 40, "b": 20}}, name="old"),
        make_mixture({"main": {"a": 2, "c": 4}}, name="new"),
    )
    phase = {"seq_len": 32, "tokens_per_step": 128, "schedule": SCHEDULE, "packing": "best_fit"}
    recipe = resolve(make_recipe(phases={"main": phase}, save={"every_tokens": 128 * 4, "keep_full": 2}), None)
    store = LocalStore(tmp_path / "store")
    arm = Arm(FitOptions(recipe, old.uri, store.uri, Workers(None, 1), name="mine"), store)
    arm.train(9)
    run = arm.continue_with(new)
    assert len({reference.id for reference in run.packs}) == 3  # of a, which both have, b and c
    arm.train()
    arm.train()
    shutil.rmtree(arm.directory / next(pack.uri for pack in run.packs if pack.name == "c"))
    with pytest.raises(NotAnArtifact, match="run the same `trainer fit` again: it makes it anew"):
        open_packs(str(arm.directory), run.packs)
    assert fit(arm.options) == store.where(run.checkpoint_path(run.timeline.total_steps))
    positions = blocks_read(run)
    assert all(positions[view] == list(range(len(positions[view]))) for view in "abc")
    by_step = []
    for step in range(run.timeline.total_steps):
        _, *lines = audit(arm.directory, step)
        found = Counter[str]()
        for line in lines:
            *_, begin, stop, document = line.split("\t")
            found[document] += int(stop) - int(begin)
        by_step.append(found)
    assert {document[0] for read in by_step[run.changes[0].step :] for document in read} == {"a", "c"}
    targets = [row["targets"] for row in arm.rows()]
    padding = [row["padding"] for row in arm.rows()]
    assert [read.total() for read in by_step] == [128 - fill for fill in padding]
    assert all(0 < learned < 128 - fill for learned, fill in zip(targets, padding, strict=True))
    assert_exposure_is(store.root, by_step)


def test_packs_of_the_same_tokens_go_on_also_under_another_id(
    tmp_path: Path, make_mixture: MakeMixture, make_recipe: MakeRecipe, process_group: None
) -> None:
    old, new = (
        make_mixture({"main": {"a": 40, "b": 20}}, name="old"),
        make_mixture({"main": {"a": 2, "c": 4}}, name="new"),
    )
    again = with_other_history(new, "a")
    phase = {"seq_len": 32, "tokens_per_step": 128, "schedule": SCHEDULE, "packing": "best_fit"}
    recipe = resolve(make_recipe(phases={"main": phase}, save={"every_tokens": 128 * 4, "keep_full": 2}), None)
    store = LocalStore(tmp_path / "store")
    arm = Arm(FitOptions(recipe, old.uri, store.uri, Workers(None, 1), name="mine"), store)
    arm.train(9)
    plain, other = arm.copy("plain"), arm.copy("other")
    packs = [{pack.id for pack in run.packs} for run in (plain.continue_with(new), other.continue_with(again))]
    assert packs[0] == packs[1], "no pack is made again"
    assert blocks_read(other.run) == blocks_read(plain.run)
    for each in (plain, other):
        each.train()
    assert_equal(plain, other)
    assert list(audit(plain.directory, 20)) == list(audit(other.directory, 20))
    by_step = [spans_of(other, step) for step in range(other.run.timeline.total_steps)]
    for document in sorted({document for read in by_step for document in read})[::5]:
        (run,) = sightings_of_document(other.store.root, document).runs
        assert run.checkpoints[-1].tokens == sum(read[document] for read in by_step)


def spans_of(arm: Arm, step: int) -> Counter[str]:
    """The tokens of each document in a step, from its audit."""
    found = Counter[str]()
    for line in list(audit(arm.directory, step))[1:]:
        *_, begin, stop, document = line.split("\t")
        found[document] += int(stop) - int(begin)
    return found


def assert_exposure_is(out: Path, by_step: list[Counter[str]]) -> None:
    documents = {document for read in by_step for document in read}
    for document in documents:
        (run,) = sightings_of_document(out, document).runs
        assert [(reads.step, reads.tokens) for reads in run.checkpoints] == [
            (reads.step, sum(read[document] for read in by_step[: reads.step])) for reads in run.checkpoints
        ]
    assert {segment.mixture for segment in run.phases} <= {"old", "new"}


def test_streams_of_the_same_tokens_go_on_and_others_begin(arm: Arm, new: Opened) -> None:
    arm.train(3)
    before = blocks_read(arm.run)
    read = blocks_read(arm.continue_with(new))
    a, b = arm.run.timeline.order.segments[0].taken
    assert a + b == 3 * 2
    assert read["a"] == list(range(a + 3 + 1)) == before["a"][: a + 3 + 1]
    assert read["b"] == list(range(b))
    assert read["c"] == list(range(3 + 4))


def test_a_stream_of_the_same_tokens_goes_on_also_under_another_id(arm: Arm, new: Opened) -> None:
    again = with_other_history(new, "a")
    arm.train(3)
    plain, other = arm.copy("plain"), arm.copy("other")
    assert blocks_read(other.continue_with(again)) == blocks_read(plain.continue_with(new))
    for each in (plain, other):
        each.train()
    assert_equal(plain, other)
    assert list(audit(plain.directory, 7)) == list(audit(other.directory, 7))


def with_other_history(mixture: Opened, name: str) -> Opened:
    """A mixture of which one stream has the same bytes, made from something else."""
    manifest, store = mixture.manifest, LocalStore(Path(mixture.uri).parent.parent)
    assert isinstance(manifest, Mixture)
    stream = open_artifact(Path(mixture.uri) / manifest.streams[name].uri)
    assert isinstance(stream.manifest, Artifact)
    path = f"tokens/{name}-again"
    with store.draft(path) as draft:
        shutil.copytree(stream.directory, draft, dirs_exist_ok=True)
        store.publish(path, draft, stream.manifest.model_copy(update={"fingerprint": "another"}))
    again = open_artifact(store.where(path))
    assert again.manifest.id != stream.manifest.id
    moved = {"id": again.manifest.id, "uri": relative_uri(again.uri, mixture.uri)}
    streams = manifest.streams | {name: manifest.streams[name].model_copy(update=moved)}
    return changed(mixture, "again", streams=streams)
