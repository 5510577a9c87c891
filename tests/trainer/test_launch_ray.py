"""Runs on a Ray cluster of two CPUs that other work has a part of."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from manifest.artifact import Opened
from manifest.errors import InputError
from manifest.progress import listening
from manifest.store import LocalStore
from trainer import launch as launching
from trainer.fit import FitOptions, plan_run
from trainer.launch import WorkerError, Workers, launch
from trainer.place import Place
from trainer.run import Run
from trainer.sizes import resolve

MakeMixture = Callable[..., Opened]
MakeRecipe = Callable[..., Path]
Planned = tuple[LocalStore, Run]

TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "c0" * 32, "RAY_USAGE_STATS_ENABLED": "0"}
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


class Cluster:
    """A Ray in a process of its own, in which CPUs can be held."""

    def __init__(self) -> None:
        environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"} | TOKEN
        self.process = subprocess.Popen(
            [sys.executable, "-c", CLUSTER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )
        assert self.process.stdout is not None
        self.address = self.process.stdout.readline().strip()

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


@pytest.fixture(scope="module")
def started() -> Iterator[Cluster]:
    cluster = Cluster()
    yield cluster
    assert cluster.process.stdin is not None
    cluster.process.stdin.close()
    cluster.process.wait()


@pytest.fixture
def cluster(started: Cluster, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """Free, and where RAY_ADDRESS says."""
    for name, value in {**TOKEN, "RAY_ADDRESS": started.address}.items():
        monkeypatch.setenv(name, value)
    assert started.is_free()
    return started


@pytest.fixture
def planned(tmp_path: Path, make_mixture: MakeMixture, make_recipe: MakeRecipe) -> Planned:
    """A run of eight windows per step."""
    mixture, store = make_mixture({"main": {"a": 8}}), LocalStore(tmp_path / "out")
    recipe = resolve(make_recipe(), None)
    return store, plan_run(FitOptions(recipe, mixture.uri, store.uri, Workers("ray", 2)), store)


class Quick(launching._Actor):
    """A worker that leaves its rank in the store."""

    def train(self, store: str, run: str, place: Place) -> None:
        (Path(store) / f"{place.rank} of {place.world}").touch()


class Dying(launching._Actor):
    def train(self, store: str, run: str, place: Place) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


def is_never_asked() -> bool:
    return False


def tick() -> None:
    pass


def test_a_run_waits_for_room_for_all_its_workers_and_says_so_once(
    cluster: Cluster, planned: Planned, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launching, "_Actor", Quick)
    store, run = planned
    cluster.tell("hold")
    said: list[Any] = []

    def released() -> None:
        if said and cluster.tell("look") == 1:  # none of its two CPUs is taken while it waits
            cluster.tell("release")

    store.root.mkdir()
    with listening(said.append):
        launch(Workers("ray", 2), store, run, tick=released, asked=is_never_asked)
    assert said == ["waiting for 2 CPUs of the Ray cluster, which other work holds"]
    assert sorted(path.name for path in store.root.iterdir()) == ["0 of 2", "1 of 2"]
    assert cluster.is_free()


def test_a_stop_is_heard_while_a_run_waits(cluster: Cluster, planned: Planned) -> None:
    cluster.tell("hold")
    ticks: list[float] = []
    with pytest.raises(KeyboardInterrupt):
        launch(Workers("ray", 2), *planned, tick=lambda: ticks.append(time.monotonic()), asked=lambda: len(ticks) > 3)
    cluster.tell("release")
    assert max(later - earlier for earlier, later in zip(ticks, ticks[1:], strict=False)) < 5 * launching.POLL_S
    assert cluster.is_free()


def test_a_worker_that_is_lost_ends_the_run_and_frees_the_cluster(
    cluster: Cluster, planned: Planned, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launching, "_Actor", Dying)
    with pytest.raises(WorkerError, match=r"(?s)a worker is lost: .*; the same command continues"):
        launch(Workers("ray", 2), *planned, tick=tick, asked=is_never_asked)
    assert cluster.is_free()


@pytest.mark.usefixtures("cluster")
def test_more_workers_than_the_cluster_has_room_for_are_refused(planned: Planned) -> None:
    expected = "5 CPUs are needed for 5 workers, but the Ray cluster has 2 CPUs in all, room for 2; use --workers ray:2"
    with pytest.raises(InputError, match=expected):
        launch(Workers("ray", 5), *planned, tick=tick, asked=is_never_asked)


@pytest.mark.slow
def test_two_runs_of_two_workers_on_two_cpus_both_finish(
    cluster: Cluster, tmp_path: Path, make_mixture: MakeMixture, make_recipe: MakeRecipe
) -> None:
    mixture, recipe = make_mixture({"main": {"a": 2}}), make_recipe()
    fits = [
        subprocess.Popen(
            [sys.executable, "-m", "trainer.cli", "fit", str(recipe), "--mixture", mixture.uri]
            + ["--out", str(tmp_path / name), "--workers", "ray:2"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name in ("one", "two")
    ]
    for fit in fits:
        _, err = fit.communicate(timeout=200)
        assert fit.returncode == 0, err
    assert cluster.is_free()


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
    with pytest.raises(InputError, match="2 CPUs and 2 GPUs are needed .* has 9 CPUs and 4 GPUs in all, room for 1;"):
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
        launch(Workers(address if scheme else "ray", 2), *planned, tick=tick, asked=is_never_asked)


@pytest.mark.parametrize("address", ["http://127.0.0.1:8265", "head", "local"])
def test_what_is_no_address_of_a_cluster_is_refused(
    planned: Planned, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(InputError, match=f"{address} is no address of a Ray cluster: expected host:port"):
        launch(Workers("ray", 2), *planned, tick=tick, asked=is_never_asked)
