"""Runs on a Ray cluster of two CPUs that other work has a part of."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from manifest.artifact import Opened
from manifest.errors import InputError
from manifest.store import LocalStore
from trainer import launch_ray as launching
from trainer.fit import FitOptions, plan_run
from trainer.launch import Workers, launch
from trainer.run import Run, enter
from trainer.sizes import resolve

MakeMixture = Callable[..., Opened]
MakeRecipe = Callable[..., Path]
Planned = tuple[LocalStore, Run]
Train = Callable[[str, int], "subprocess.Popen[str]"]

CLUSTER = """
import sys, ray

ray.init("local", num_cpus=2, include_dashboard=False, object_store_memory=100_000_000, log_to_driver=False)

@ray.remote(num_cpus=1)
class Holder:
    def ready(self): pass

held = []
print(ray.get_runtime_context().gcs_address, flush=True)
for line in sys.stdin:
    if line == "hold\\n":
        held.append(Holder.remote())
        ray.get(held[-1].ready.remote())
    elif line == "release\\n":
        ray.kill(held.pop())
    print(int(ray.available_resources().get("CPU", 0)), flush=True)
"""

TRAIN = """
import os, signal, sys, time
from pathlib import Path
from manifest.errors import run_command
from trainer import launch, launch_ray
from trainer.run import local_store, read_run

class Quick(launch_ray._Actor):
    def train(self, store, run, place):
        time.sleep(0.5)
        (Path(store) / f"{place.rank} of {place.world}").touch()

class Dying(launch_ray._Actor):
    def train(self, store, run, place):
        os.kill(os.getpid(), signal.SIGKILL)

kind, count, root, name = sys.argv[1:]
launch_ray._Actor = {"quick": Quick, "dying": Dying}[kind]
asked = []
signal.signal(signal.SIGTERM, lambda *_: asked.append(True))
workers, run = launch.Workers("ray", int(count)), read_run(Path(root) / "runs" / name)
stopped = lambda: bool(asked)
work = lambda: launch.launch(workers, local_store(root), run, tick=lambda: None, asked=stopped, max_restarts=1)
sys.exit(run_command(work))
"""
WAITING = "waiting for 2 CPUs of the Ray cluster, which other work holds\n"


class Cluster:
    """A Ray in a process of its own, in which CPUs can be held."""

    def __init__(self) -> None:
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "c0" * 32, "RAY_USAGE_STATS_ENABLED": "0"}
        self.environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"} | token
        self.process = subprocess.Popen(
            [sys.executable, "-c", CLUSTER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=self.environment,
        )
        assert self.process.stdout is not None
        self.environment["RAY_ADDRESS"] = self.process.stdout.readline().strip()

    def tell(self, what: str) -> int:
        """hold or release a CPU, or only look. Returns how many are free."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(what + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def is_free(self, seconds: float = 10) -> bool:
        end = time.monotonic() + seconds
        while (free := self.tell("look")) < 2 and time.monotonic() < end:
            time.sleep(0.1)
        return free == 2

    def run(self, *command: object) -> subprocess.Popen[str]:
        """A Python process whose RAY_ADDRESS is this cluster."""
        return subprocess.Popen(
            [sys.executable, *map(str, command)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.environment,
        )


@pytest.fixture(scope="module")
def started() -> Iterator[Cluster]:
    cluster = Cluster()
    yield cluster
    assert cluster.process.stdin is not None
    cluster.process.stdin.close()
    cluster.process.wait()


@pytest.fixture
def cluster(started: Cluster) -> Cluster:
    assert started.is_free()
    return started


@pytest.fixture
def planned(tmp_path: Path, make_mixture: MakeMixture, make_recipe: MakeRecipe) -> Planned:
    """A run of eight windows per step."""
    mixture, store = make_mixture({"main": {"a": 8}}), LocalStore(tmp_path / "out")
    recipe = resolve(make_recipe(), None)
    return store, plan_run(FitOptions(recipe, mixture.uri, store.uri, Workers("ray", 2)), store)


@pytest.fixture
def train(cluster: Cluster, planned: Planned) -> Train:
    """(kind of worker, count) → a process that runs so many of them. quick: each leaves its rank in the store."""
    store, run = planned
    (store.root / run.path).mkdir(parents=True)
    enter(store, run)
    return lambda kind, count: cluster.run("-c", TRAIN, kind, count, store.root, run.name)


def test_a_run_waits_for_room_for_all_its_workers_and_says_so_once(
    cluster: Cluster, planned: Planned, train: Train
) -> None:
    cluster.tell("hold")
    run = train("quick", 2)
    assert run.stderr is not None
    assert run.stderr.readline() == WAITING
    assert cluster.tell("look") == 1  # it holds nothing while it waits
    cluster.tell("release")
    _, err = run.communicate(timeout=60)
    assert (run.returncode, err) == (0, "")
    assert {path.name for path in planned[0].root.glob("* of *")} == {"0 of 2", "1 of 2"}
    assert cluster.is_free()


def test_a_stop_is_heard_while_a_run_waits(cluster: Cluster, train: Train) -> None:
    cluster.tell("hold")
    run = train("quick", 2)
    assert run.stderr is not None
    assert run.stderr.readline() == WAITING
    run.terminate()
    _, err = run.communicate(timeout=10)
    cluster.tell("release")
    assert (run.returncode, err) == (130, "interrupted; the same command continues from here\n")
    assert cluster.is_free()


@pytest.mark.slow
def test_runs_that_together_need_more_than_the_cluster_all_finish(cluster: Cluster, train: Train) -> None:
    for run in [train("quick", 2) for _ in range(2)]:
        _, err = run.communicate(timeout=60)
        assert run.returncode == 0, err
    assert cluster.is_free()


@pytest.mark.slow
def test_workers_that_are_lost_again_end_the_run_and_free_the_cluster(cluster: Cluster, train: Train) -> None:
    run = train("dying", 2)
    _, err = run.communicate(timeout=60)
    assert run.returncode == 1
    assert "going on after step 0 by itself (restart 1 of 1 without progress)" in err
    assert "error: a worker is lost: " in err
    assert cluster.is_free()


def test_more_workers_than_the_cluster_has_room_for_are_refused(train: Train) -> None:
    run = train("quick", 5)
    _, err = run.communicate(timeout=30)
    assert run.returncode == 2
    assert err == (
        "error: 5 CPUs are needed for 5 workers, but the Ray cluster has 2 CPUs in all, room for 2; use --workers "
        "ray:2, or add machines first\n"
    )


@pytest.mark.slow
def test_two_runs_of_two_workers_on_two_cpus_both_finish(
    cluster: Cluster, tmp_path: Path, make_mixture: MakeMixture, make_recipe: MakeRecipe
) -> None:
    mixture, recipe = make_mixture({"main": {"a": 2}}), make_recipe()
    options = ["--mixture", mixture.uri, "--workers", "ray:2"]
    fits = [
        cluster.run("-m", "trainer.cli", "fit", recipe, *options, "--out", tmp_path / name) for name in ("one", "two")
    ]
    for fit in fits:
        _, err = fit.communicate(timeout=200)
        assert fit.returncode == 0, err
    assert cluster.is_free()


@pytest.mark.slow
def test_sigterm_lets_a_run_on_a_cluster_save_and_end(
    cluster: Cluster, tmp_path: Path, make_mixture: MakeMixture, make_recipe: MakeRecipe
) -> None:
    mixture, out = make_mixture({"main": {"a": 4000}}), tmp_path / "out"
    options = ["--mixture", mixture.uri, "--workers", "ray:2", "--out", out]
    fit = cluster.run("-m", "trainer.cli", "fit", make_recipe(), *options)
    while not any(file.stat().st_size for file in out.glob("runs/*/metrics.jsonl")):
        assert fit.poll() is None
        time.sleep(0.1)
    fit.terminate()
    _, err = fit.communicate(timeout=60)
    assert fit.returncode == 0, err
    assert "stopped after step" in err


@pytest.mark.parametrize(
    ("count", "machines", "expected"),
    [
        (None, [{"CPU": 2}, {"CPU": 3}], ({"CPU": 1}, 5)),
        (None, [{"CPU": 99}], ({"CPU": 1}, 8)),
        (3, [{"CPU": 2}, {"CPU": 3}], ({"CPU": 1}, 3)),
        (None, [{"CPU": 16, "GPU": 2}, {"CPU": 1, "GPU": 4}, {"CPU": 9}], ({"CPU": 1, "GPU": 1}, 3)),
    ],
)
def test_a_worker_takes_a_gpu_where_there_are_any(
    count: int | None, machines: list[dict[str, float]], expected: tuple[dict[str, int], int]
) -> None:
    nodes = [{"Alive": True, "Resources": machine} for machine in machines]
    dead = {"Alive": False, "Resources": {}}
    assert launching._bundles(count, 8, [*nodes, dead]) == expected


def test_gpus_on_machines_without_a_free_cpu_are_no_room() -> None:
    nodes = [{"Alive": True, "Resources": {"CPU": 1, "GPU": 4}}, {"Alive": True, "Resources": {"CPU": 8}}]
    with pytest.raises(InputError, match=r"2 CPUs and 2 GPUs are needed .* has 9 CPUs and 4 GPUs in all, room for 1;"):
        launching._bundles(2, 8, nodes)


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_where_nothing_listens_there_is_no_cluster(
    planned: Planned, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"{scheme}127.0.0.1:{probe.getsockname()[1]}"
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(InputError, match=rf"no Ray cluster can be used at {address} .*refused.*RAY_ADDRESS"):
        launch(Workers(address if scheme else "ray", 2), *planned, tick=bool, asked=bool)


@pytest.mark.parametrize("address", ["http://127.0.0.1:8265", "head", "local"])
def test_what_is_no_address_of_a_cluster_is_refused(
    planned: Planned, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(InputError, match=f"{address} is no address of a Ray cluster: expected host:port"):
        launch(Workers("ray", 2), *planned, tick=bool, asked=bool)
