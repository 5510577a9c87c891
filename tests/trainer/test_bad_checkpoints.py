"""Checkpoints that are not whole, of another version, or not what they say; and a disk that fills up during a save."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.trainer.conftest import entered, never, stop_after

from manifest.artifact import Opened, verify
from manifest.checkpoint import Checkpoint
from manifest.errors import CorruptArtifact, UnknownVersion
from manifest.store import LocalStore
from trainer import loop
from trainer.checkpoint import load_model
from trainer.run import Run, newest

pytestmark = pytest.mark.usefixtures("process_group")

SCHEDULE = {"shape": "linear", "warmup_steps": 1, "peak": 0.01, "end": 0.001}
TOTAL = 6
Prepare = Callable[[str], tuple[LocalStore, Run]]


@pytest.fixture
def prepare(tmp_path: Path, make_mixture: Callable[..., Opened], make_recipe: Callable[..., Path]) -> Prepare:
    mixture = make_mixture({"main": {"a": 4, "b": 2}})
    phases = {"main": {"seq_len": 16, "tokens_per_step": 64, "schedule": SCHEDULE}}
    recipe = make_recipe(phases=phases, save={"every_steps": 2})

    def make(name: str) -> tuple[LocalStore, Run]:
        store = LocalStore(tmp_path / name)
        return entered(store, recipe, mixture)

    return make


def record_at(store: LocalStore, run: Run, step: int) -> Checkpoint:
    found = store.manifest(run.checkpoint_path(step))
    assert isinstance(found, Checkpoint)
    return found


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """The system refuses to let a file grow beyond that, as a full disk would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_that_fills_up_during_a_save_leaves_the_last_checkpoint_and_the_run_goes_on_with_room(
    prepare: Prepare,
) -> None:
    through, (store, run) = prepare("through"), prepare("full")
    loop.train(*through, never)
    loop.train(store, run, stop_after(2))
    with files_of_at_most(16_000), pytest.raises(OSError, match="weights-00000"):
        loop.train(store, run, never)
    assert store.list(f"{run.path}/checkpoints") == ["00000000", "00000002"]
    found = newest(store, run)
    assert found is not None
    assert verify(found.uri) > 0
    loop.train(store, run, never)
    one, other = record_at(*through, TOTAL), record_at(store, run, TOTAL)
    assert (one.weights, one.moments, one.state) == (other.weights, other.moments, other.state)


def test_a_checkpoint_of_another_version_is_refused_and_left_alone(prepare: Prepare) -> None:
    store, run = prepare("out")
    loop.train(store, run, stop_after(2))
    file = store.root / run.checkpoint_path(2) / "manifest.json"
    changed = json.dumps(json.loads(file.read_text()) | {"version": 2}).encode()
    file.write_bytes(changed)
    with pytest.raises(UnknownVersion, match="version 2"):
        loop.train(store, run, never)
    assert file.read_bytes() == changed
    assert store.list(f"{run.path}/checkpoints") == ["00000000", "00000002"]


class _Payload:
    """What would make a directory, were it unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_a_pickle_in_the_place_of_weights_is_not_executed_even_if_the_manifest_vouches_for_it(
    prepare: Prepare, tmp_path: Path
) -> None:
    store, run = prepare("out")
    loop.train(store, run, stop_after(2))
    directory = store.root / run.checkpoint_path(2)
    record = record_at(store, run, 2)
    forged = pickle.dumps(_Payload(tmp_path / "executed"))
    (entry,) = record.weights
    (directory / entry.path).write_bytes(forged)
    entry = entry.model_copy(update={"bytes": len(forged), "sha256": hashlib.sha256(forged).hexdigest()})
    (directory / "manifest.json").write_bytes(record.model_copy(update={"weights": (entry,)}).identified().to_json())
    with pytest.raises(CorruptArtifact, match=r"weights-00000\.safetensors is not safetensors"):
        load_model(store.where(run.checkpoint_path(2)))
    with pytest.raises(CorruptArtifact, match=r"weights-00000\.safetensors is not safetensors"):
        loop.train(store, run, never)
    assert not (tmp_path / "executed").exists()
