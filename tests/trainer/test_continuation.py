"""`--continue-with`: runs that read one mixture, then another."""

from __future__ import annotations

import json
import shutil
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.trainer.test_fit import finished, losses, published, start

from manifest.artifact import Opened, open_artifact, relative_uri
from manifest.checkpoint import Checkpoint
from manifest.errors import InputError, NotAnArtifact, RecipeError, WrongArtifact
from manifest.indexed import open_shard
from manifest.mixture import Mixture
from manifest.record import Artifact, Reference
from manifest.sightings import sightings_of_document
from manifest.store import LocalStore
from trainer.audit import audit
from trainer.continuation import continued
from trainer.data.loader import StepSource
from trainer.data.mixtures import mixture_sources
from trainer.fit import FitOptions, fit, plan_run
from trainer.launch import Workers
from trainer.loop import train
from trainer.packs import open_packs
from trainer.run import METRICS, Run, known, newest, open_mixture, read_run, write_run
from trainer.sizes import resolve

MakeMixture = Callable[..., Opened]
MakeRecipe = Callable[..., Path]

SCHEDULE = {"shape": "cosine", "warmup_steps": 2, "peak": 0.01, "end": 0.001, "span": "run"}
PHASES = {
    "short": {"seq_len": 16, "tokens_per_step": 128, "schedule": SCHEDULE},
    "long": {"seq_len": 32, "tokens_per_step": 128, "schedule": {"continue": "short"}, "optimizer": "reset"},
}
OLD = {"short": {"a": 9, "b": 3}, "long": {"a": 3, "b": 2}}
NEW = {"short": {"a": 4, "c": 4}, "long": {"a": 1, "c": 4}}
EVERY_STEP = {"every_tokens": 128, "keep_full": 2}


@dataclass(frozen=True)
class Arm:
    """A run in a store of its own, of 6 + 3 steps, and what it takes to go on with it."""

    options: FitOptions
    store: LocalStore

    @property
    def run(self) -> Run:
        return known(self.store, plan_run(self.options, self.store))

    @property
    def directory(self) -> Path:
        return self.store.root / self.run.path

    def train(self, steps: int = 1000) -> None:
        """Trains so many steps, or to the end."""
        calls = iter(range(1, 1000))
        self.directory.mkdir(parents=True, exist_ok=True)
        write_run(self.store, self.run)
        train(self.store, read_run(self.directory), lambda: next(calls) >= steps)

    def continue_with(self, mixture: Opened) -> Run:
        run = continued(self.store, self.run, mixture.uri, "recipe.yaml")
        write_run(self.store, run)
        return run

    def copy(self, name: str) -> Arm:
        root = self.store.root.with_name(name)
        shutil.copytree(self.store.root, root)
        return Arm(replace(self.options, out=str(root)), LocalStore(root))

    def rows(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.directory / METRICS).read_text().splitlines()]

    def final(self) -> Checkpoint:
        found = self.store.manifest(self.run.checkpoint_path(self.run.timeline.total_steps))
        assert isinstance(found, Checkpoint)
        return found


@pytest.fixture
def old(make_mixture: MakeMixture) -> Opened:
    return make_mixture(OLD, name="old")


@pytest.fixture
def new(make_mixture: MakeMixture) -> Opened:
    return make_mixture(NEW, name="new")


@pytest.fixture
def arm(tmp_path: Path, old: Opened, make_recipe: MakeRecipe, process_group: None) -> Arm:
    recipe = resolve(make_recipe(phases=PHASES, save=EVERY_STEP), None)
    store = LocalStore(tmp_path / "runs")
    return Arm(FitOptions(recipe, old.uri, store.uri, Workers(None, 1), name="mine"), store)


def changed(mixture: Opened, name: str, **changes: Any) -> Opened:
    """Another mixture in the same store."""
    store = LocalStore(Path(mixture.uri).parent.parent)
    manifest = mixture.manifest.model_copy(update={"name": name, **changes})
    with store.draft(f"mixtures/{name}") as draft:
        store.publish(f"mixtures/{name}", draft, manifest)
    return open_artifact(store.where(f"mixtures/{name}"))


# What is read


def documents_of(mixture: Opened) -> dict[str, list[str]]:
    """The document that each token of each stream belongs to, from the shards' own lists."""
    manifest = mixture.manifest
    assert isinstance(manifest, Mixture)
    found: dict[str, list[str]] = {}
    for name, stream in manifest.streams.items():
        shard = open_shard(Path(mixture.uri) / stream.uri / "tokens-00000")
        bounds = [*(shard.start(index) for index in range(shard.documents)), stream.tokens]
        found[name] = [shard.document_id(i) for i in range(shard.documents) for _ in range(bounds[i + 1] - bounds[i])]
    return found


class Logged:
    """A stream that notes what is read of it."""

    def __init__(self, stream: Any, documents: list[str], log: list[str]) -> None:
        self._stream, self._documents, self._log = stream, documents, log

    def read(self, start: int, length: int) -> np.ndarray:
        tokens = len(self._documents)
        self._log += [self._documents[token % tokens] for token in range(start, start + length)]
        return np.asarray(self._stream.read(start, length))


def logged(source: StepSource, mixture: Opened, log: list[str]) -> StepSource:
    manifest = mixture.manifest
    assert isinstance(manifest, Mixture)
    documents = documents_of(mixture)
    names = {
        draw.stream: manifest.views[draw.view].stream
        for segment in source.timeline.order.segments
        if segment.mixture == manifest.id
        for draw in segment.draws
    }
    streams = {tape: Logged(stream, documents[names[tape]], log) for tape, stream in source.reader.streams.items()}
    return replace(source, reader=replace(source.reader, streams=streams))


def read_by_step(directory: Path, worlds: dict[str, int]) -> list[Counter[str]]:
    """The tokens of each document that each step of a run reads, by running its loader. worlds: per mixture's name."""
    run = read_run(directory)
    found: list[Counter[str]] = [Counter() for _ in range(run.timeline.total_steps)]
    for reference in run.mixtures:
        mixture = open_mixture(str(directory), run, reference)
        world = worlds[reference.name]
        for rank in range(world):
            sources = mixture_sources([mixture], run.timeline, rank=rank, world=world, phases=run.recipe.phases)
            log: list[str] = []
            source = logged(sources.sources[reference.id], mixture, log)
            for step in range(run.timeline.total_steps):
                if run.mixture_of(run.timeline.step(step).segment) == reference:
                    log.clear()
                    source.read(step)
                    found[step].update(log)
    return found


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


def assert_rows_are_of_the_views_read(directory: Path, by_step: list[Counter[str]]) -> None:
    """The workers' own word for it: a loss for each view that they read."""
    for line in (directory / METRICS).read_text().splitlines():
        row = json.loads(line)
        assert row["views"].keys() == {document.split("/")[0] for document in by_step[row["step"]]}


def assert_exposure_is(out: Path, by_step: list[Counter[str]]) -> None:
    documents = {document for read in by_step for document in read}
    for document in documents:
        (run,) = sightings_of_document(out, document).runs
        assert [(reads.step, reads.tokens) for reads in run.checkpoints] == [
            (reads.step, sum(read[document] for read in by_step[: reads.step])) for reads in run.checkpoints
        ]
    assert {segment.mixture for segment in run.phases} <= {"old", "new"}


def blocks_read(run: Run) -> dict[str, list[int]]:
    """The positions on the tapes that each view reads, in order."""
    found: dict[str, list[int]] = defaultdict(list)
    for segment in run.timeline.order.segments:
        for draw, taken in zip(segment.draws, segment.taken, strict=True):
            found[draw.view] += [draw.position(k) for k in range(taken)]
    return found


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


def assert_equal(one: Arm, other: Arm) -> None:
    """To the bit: weights, moments, state and losses."""
    a, b = one.final(), other.final()
    assert (a.weights, a.moments, a.state) == (b.weights, b.moments, b.state)
    measured = ("step", "phase", "tokens", "targets", "loss", "views", "lr", "grad_norm", "fim")
    rows = [[{key: row.get(key) for key in measured} for row in arm.rows()] for arm in (one, other)]
    assert rows[0] == rows[1]
    assert [row["step"] for row in rows[0]] == list(range(a.step))


# A run that goes on


@pytest.mark.parametrize("steps", [1, 3, 5], ids=["in the phase", "to its end", "beyond"])
def test_a_run_killed_after_the_change_ends_as_if_it_had_not_been(arm: Arm, new: Opened, steps: int) -> None:
    arm.train(3)
    through, killed = arm.copy("through"), arm.copy("killed")
    for each in (through, killed):
        each.continue_with(new)
    through.train()
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


# What is refused


def test_another_tokenizer_is_refused(arm: Arm, new: Opened) -> None:
    manifest = new.manifest
    assert isinstance(manifest, Mixture)
    other = changed(new, "other", tokenizer=manifest.tokenizer.model_copy(update={"digest": "1"}))
    arm.train(3)
    with pytest.raises(WrongArtifact, match=r"other-\w+ has another tokenizer \(1\) than old-\w+ \(0\)"):
        arm.continue_with(other)
    assert read_run(arm.directory).changes == ()


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
    odd = {name: {**phase, "seq_len": 16, "tokens_per_step": 48} for name, phase in PHASES.items()}
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
