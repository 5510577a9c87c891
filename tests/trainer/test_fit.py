"""The command as a person runs it: processes, signals, one line on stdout."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.trainer.conftest import publish_mixture, write_recipe

from manifest.artifact import Opened
from manifest.checkpoint import Checkpoint
from manifest.cpus import cores_here
from manifest.errors import InputError, RecipeError, WrongArtifact
from manifest.store import LocalStore
from trainer.cli import _run_name
from trainer.events import events
from trainer.fit import FitOptions, plan_run
from trainer.launch import Workers
from trainer.loop import train
from trainer.run import METRICS, enter, held
from trainer.sizes import resolve

MakeMixture = Callable[..., Opened]
MakeRecipe = Callable[..., Path]

STEPS = 80
DRAWS = {"main": {"a": STEPS, "b": STEPS}}  # two blocks of 64 tokens per step
SAVE = {"every_tokens": 128 * 10, "keep_full": 2}


@dataclass(frozen=True)
class Through:
    """What a run needs, and how it ends: `final` is its last checkpoint."""

    recipe: Path
    mixture: Opened
    out: Path
    final: Checkpoint


def start(
    recipe: Path, mixture: Opened, out: Path, *flags: str, env: Mapping[str, str] = os.environ
) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "trainer.cli", "fit", str(recipe), "--mixture", mixture.uri, "--out", str(out)]
    return subprocess.Popen([*command, *flags], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)


def finished(process: subprocess.Popen[str], code: int = 0) -> str:
    out, err = process.communicate(timeout=120)
    assert process.returncode == code, err
    return out


def published(out: str) -> Checkpoint:
    (line,) = out.splitlines()
    found = LocalStore(Path(line).parent).manifest(Path(line).name)
    assert isinstance(found, Checkpoint)
    return found


def losses(out: Path) -> list[float]:
    (file,) = out.glob(f"runs/*/{METRICS}")
    found = [json.loads(line) for line in file.read_text().splitlines()]
    assert [row["step"] for row in found] == list(range(len(found)))
    return [row["loss"] for row in found]


def wait_for(what: Callable[[], Any], timeout_s: float = 90) -> None:
    deadline = time.monotonic() + timeout_s
    while not what():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


@pytest.fixture(scope="module")
def through(tmp_path_factory: pytest.TempPathFactory, process_group: None) -> Through:
    """A run that nothing disturbed, trained in this process."""
    root = tmp_path_factory.mktemp("through")
    mixture, recipe = publish_mixture(root / "store", DRAWS), write_recipe(root, save=SAVE)
    store = LocalStore(root / "through")
    run = plan_run(FitOptions(resolve(recipe, None), mixture.uri, store.uri, Workers(None, 1)), store)
    enter(store, run)
    train(store, run, lambda: False)
    record = store.manifest(run.checkpoint_path(STEPS))
    assert isinstance(record, Checkpoint)
    return Through(recipe, mixture, store.root, record)


def kill_in_the_middle(process: subprocess.Popen[str], out: Path) -> None:
    wait_for(lambda: list(out.glob("runs/*/checkpoints/0000001*")))
    workers = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.communicate()
    _, alive = psutil.wait_procs(workers, timeout=20)
    assert not alive, "workers outlived their parent"
    assert not list(out.glob(f"runs/*/checkpoints/{STEPS:08d}")), "killed too late to show anything"


def test_a_killed_run_ends_as_if_it_had_not_been(through: Through, tmp_path: Path) -> None:
    out = tmp_path / "killed"
    kill_in_the_middle(start(through.recipe, through.mixture, out, "--workers", "local:1"), out)

    resumed = published(finished(start(through.recipe, through.mixture, out, "--workers", "local:1")))
    # The same to the bit: these are the digests of all weights and moments.
    assert (resumed.weights, resumed.moments) == (through.final.weights, through.final.moments)
    assert losses(out) == losses(through.out)

    again = start(through.recipe, through.mixture, out, "--workers", "local:1")
    said, remark = again.communicate(timeout=60)
    assert published(said).id == resumed.id
    assert "already finished" in remark


def test_by_default_one_worker_has_all_cores_and_goes_on_to_the_bit(through: Through, tmp_path: Path) -> None:
    free = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    process = start(through.recipe, through.mixture, whole, env=free)
    said, remarks = process.communicate(timeout=120)
    undisturbed = published(said)
    assert f"1 worker here, {cores_here()} thread" in remarks

    kill_in_the_middle(start(through.recipe, through.mixture, killed, env=free), killed)
    resumed = published(finished(start(through.recipe, through.mixture, killed, env=free)))
    assert (resumed.weights, resumed.moments) == (undisturbed.weights, undisturbed.moments)
    assert losses(killed) == losses(whole) == pytest.approx(losses(through.out), rel=1e-5)


@pytest.mark.slow
def test_two_workers_learn_what_one_does_and_one_goes_on_from_them(through: Through, tmp_path: Path) -> None:
    out = tmp_path / "stopped"
    process = start(through.recipe, through.mixture, out, "--workers", "local:2")
    wait_for(lambda: list(out.glob("runs/*/checkpoints/0000001*")))
    process.send_signal(signal.SIGTERM)
    early = published(finished(process))
    assert 10 <= early.step < STEPS
    assert len(losses(out)) == early.step
    assert losses(out) == pytest.approx(losses(through.out)[: early.step], rel=1e-5)
    store = LocalStore(out)
    options = FitOptions(resolve(through.recipe, None), through.mixture.uri, store.uri, Workers(None, 1))
    train(store, plan_run(options, store), lambda: False)
    assert len(losses(out)) == STEPS
    assert losses(out) == pytest.approx(losses(through.out), rel=1e-4)


def test_a_run_goes_on_by_itself_after_a_worker_was_killed(through: Through, tmp_path: Path) -> None:
    out = tmp_path / "killed"
    process = start(through.recipe, through.mixture, out, "--workers", "local:1")
    wait_for(lambda: list(out.glob("runs/*/checkpoints/0000001*/manifest.json")))
    os.kill(psutil.Process(process.pid).children()[0].pid, signal.SIGKILL)
    said, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert "worker 0 was killed by SIGKILL; going on after step " in err
    ended = published(said)
    assert (ended.weights, ended.moments) == (through.final.weights, through.final.moments)
    assert losses(out) == losses(through.out)
    (event,) = events(next(out.glob("runs/*")))
    assert (event["event"], event["step"] >= 10) == ("restart", True)


def test_a_worker_that_dies_ends_the_run_with_its_reason_if_it_may_not_restart(
    tmp_path: Path, make_mixture: MakeMixture, make_recipe: MakeRecipe
) -> None:
    flags = ["--workers", "local:2", "--max-restarts", "0"]
    process = start(make_recipe(save=SAVE), make_mixture(DRAWS), tmp_path / "out", *flags)
    wait_for(lambda: len(psutil.Process(process.pid).children()) == 2)
    os.kill(psutil.Process(process.pid).children()[1].pid, signal.SIGKILL)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (1, "")
    assert "worker 1 was killed by SIGKILL" in err


def test_what_a_worker_finds_wrong_is_the_users_to_know(
    tmp_path: Path, make_mixture: MakeMixture, make_recipe: MakeRecipe
) -> None:
    mixture, recipe = make_mixture(DRAWS), make_recipe()
    (tokens,) = (tmp_path / "store").glob("tokens/a/*.bin")
    tokens.write_bytes(tokens.read_bytes()[:-2])
    process = start(recipe, mixture, tmp_path / "out", "--workers", "local:1")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (2, "")
    assert f"error: {tokens} has " in err
    assert "Traceback" not in err


@pytest.fixture
def options(tmp_path: Path, make_mixture: MakeMixture, make_recipe: MakeRecipe) -> FitOptions:
    mixture = make_mixture({"main": {"a": 6, "b": 2}})
    return FitOptions(
        recipe=resolve(make_recipe(), None),
        mixture=mixture.uri,
        out=str(tmp_path / "out"),
        workers=Workers(None, 1),
        name="mine",
    )


def changed(options: FitOptions, **changes: Any) -> FitOptions:
    return replace(options, **changes)


def test_a_run_is_named_by_what_makes_it_that_run(options: FitOptions, make_recipe: MakeRecipe) -> None:
    store = LocalStore(Path(options.out))
    unnamed = changed(options, name=None)
    name = plan_run(unnamed, store).name
    assert name.startswith("small-tiny-")
    assert plan_run(changed(unnamed, workers=Workers(None, 7)), store).name == name
    others = [changed(unnamed, seed=1), changed(unnamed, tokens=300)]
    others.append(changed(unnamed, recipe=resolve(make_recipe(optimizer={"weight_decay": 0.0}), None)))
    wider = replace(unnamed.recipe, size=unnamed.recipe.size.model_copy(update={"filter": 96}))
    others.append(changed(unnamed, recipe=wider))
    assert len({name, *(plan_run(other, store).name for other in others)}) == 5


def test_tokens_are_written_into_the_order(options: FitOptions) -> None:
    run = plan_run(changed(options, tokens=4 * 64), LocalStore(Path(options.out)))
    assert run.timeline.order.slots == 4
    assert {draw.view: draw.blocks for draw in run.timeline.order.segments[0].draws} == {"a": 3, "b": 1}


def test_a_name_that_is_taken_by_another_run_is_refused(options: FitOptions) -> None:
    store = LocalStore(Path(options.out))
    enter(store, plan_run(options, store))
    with pytest.raises(RecipeError, match="run mine is another run: it has another seed"):
        enter(store, plan_run(changed(options, seed=3), store))


def test_a_run_refuses_another_mixture(options: FitOptions, make_mixture: MakeMixture) -> None:
    store = LocalStore(Path(options.out))
    enter(store, plan_run(options, store))
    other = make_mixture({"main": {"a": 5, "b": 2}}, name="other")
    with pytest.raises(WrongArtifact, match=r"run mine reads mixture mix-\w+, not other-\w+"):
        enter(store, plan_run(changed(options, mixture=other.uri), store))


def test_a_run_is_trained_by_one_process_at_a_time(options: FitOptions) -> None:
    directory = Path(options.out) / "runs" / "mine"
    directory.mkdir(parents=True)
    with held(directory):
        command = f"from pathlib import Path; from trainer.run import held; held(Path({str(directory)!r})).__enter__()"
        second = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=False)
    assert "is being trained by another process" in second.stderr


def test_a_run_that_another_process_still_holds_is_waited_for(tmp_path: Path) -> None:
    command = (
        "import time, sys; from pathlib import Path; from trainer.run import held\n"
        f"with held(Path({str(tmp_path)!r})): print(flush=True); time.sleep(0.6)"
    )
    with subprocess.Popen([sys.executable, "-c", command], stdout=subprocess.PIPE) as first:
        assert first.stdout is not None
        first.stdout.readline()
        with pytest.raises(InputError, match="is being trained by another process"), held(tmp_path, 0.0):
            pass
        with held(tmp_path, 30.0):
            assert first.wait(30) == 0


@pytest.mark.parametrize("name", ["../escape", "..", "a/b", "", "-x"])
def test_a_run_cannot_be_named_out_of_its_store(name: str) -> None:
    with pytest.raises(RecipeError, match="--name"):
        _run_name(name)
