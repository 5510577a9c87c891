"""Runs that read one mixture, then another (`--continue-with`), and what their loaders read."""

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
from tests.trainer.conftest import TWO_LENGTHS

from manifest.artifact import Opened, open_artifact
from manifest.checkpoint import Checkpoint
from manifest.indexed import open_shard
from manifest.mixture import Mixture
from manifest.store import LocalStore
from trainer.continuation import continued
from trainer.data.loader import StepSource
from trainer.data.mixtures import mixture_sources
from trainer.fit import FitOptions, plan_run
from trainer.launch import Workers
from trainer.loop import train
from trainer.run import METRICS, Run, known, open_mixture, read_run, write_run
from trainer.sizes import resolve

MakeMixture = Callable[..., Opened]
MakeRecipe = Callable[..., Path]
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
    recipe = resolve(make_recipe(phases=TWO_LENGTHS, save=EVERY_STEP), None)
    store = LocalStore(tmp_path / "runs")
    return Arm(FitOptions(recipe, old.uri, store.uri, Workers(None, 1), name="mine"), store)


def changed(mixture: Opened, name: str, **changes: Any) -> Opened:
    """Another mixture in the same store."""
    store = LocalStore(Path(mixture.uri).parent.parent)
    manifest = mixture.manifest.model_copy(update={"name": name, **changes})
    with store.draft(f"mixtures/{name}") as draft:
        store.publish(f"mixtures/{name}", draft, manifest)
    return open_artifact(store.where(f"mixtures/{name}"))


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


def assert_rows_are_of_the_views_read(directory: Path, by_step: list[Counter[str]]) -> None:
    """The workers' own word for it: a loss for each view that they read."""
    for line in (directory / METRICS).read_text().splitlines():
        row = json.loads(line)
        assert row["views"].keys() == {document.split("/")[0] for document in by_step[row["step"]]}


def blocks_read(run: Run) -> dict[str, list[int]]:
    """The positions on the tapes that each view reads, in order."""
    found: dict[str, list[int]] = defaultdict(list)
    for segment in run.timeline.order.segments:
        for draw, taken in zip(segment.draws, segment.taken, strict=True):
            found[draw.view] += [draw.position(k) for k in range(taken)]
    return found


def assert_equal(one: Arm, other: Arm) -> None:
    """To the bit: weights, moments, state and losses."""
    a, b = one.final(), other.final()
    assert (a.weights, a.moments, a.state) == (b.weights, b.moments, b.state)
    measured = ("step", "phase", "tokens", "targets", "loss", "views", "lr", "grad_norm", "fim")
    rows = [[{key: row.get(key) for key in measured} for row in arm.rows()] for arm in (one, other)]
    assert rows[0] == rows[1]
    assert [row["step"] for row in rows[0]] == list(range(a.step))
