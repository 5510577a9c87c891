"""Workers on a running cluster of two CPUs that other work has a part of."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dataproc.workers import open_workers
from manifest.errors import InputError

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

BUILD = """
import sys, time
from pathlib import Path
from dataproc import workers
from dataproc.workers import actors
from manifest.errors import run_command

actors.PATIENCE_S = 0.5
spec, seconds, notes = sys.argv[1], float(sys.argv[2]), Path(sys.argv[3])

def task(number):
    time.sleep(seconds)
    if number < 0:
        raise ValueError(number)
    return workers.Done()

def work():
    with workers.open_workers(spec) as pool:
        print(pool.count, flush=True)
        for name in sys.argv[4:]:
            pool.map(task, [int(number) for number in name.split(",")], result=workers.Done, notes=notes, label="x")

sys.exit(run_command(work))
"""

WAITING = "waiting for a worker to start: other work may hold the CPUs of the Ray cluster\n"


class Cluster:
    """A Ray in a process of its own, in which CPUs can be held."""

    def __init__(self, directory: Path) -> None:
        self.environment = {
            **os.environ,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": "c0" * 32,
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        self.environment.pop("RAY_ADDRESS", None)
        self.directory = directory
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

    def build(self, spec: str, *maps: str, seconds: float = 0) -> subprocess.Popen[str]:
        """A process that opens the workers `spec` and maps a task over these items: "1,2,3"."""
        self.directory.mkdir(exist_ok=True)
        notes = self.directory / str(len(list(self.directory.iterdir())))
        notes.mkdir()
        return subprocess.Popen(
            [sys.executable, "-c", BUILD, spec, str(seconds), str(notes), *maps],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.environment,
        )


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    started = Cluster(tmp_path_factory.mktemp("cluster"))
    yield started
    assert started.process.stdin is not None
    started.process.stdin.close()
    started.process.wait()


@pytest.fixture
def one_cpu_is_taken(cluster: Cluster) -> Iterator[None]:
    assert cluster.is_free()
    cluster.tell("hold")
    yield
    cluster.tell("release")


@pytest.mark.usefixtures("one_cpu_is_taken")
def test_two_workers_do_with_the_one_cpu_that_is_free(cluster: Cluster) -> None:
    build = cluster.build("ray:2", "1,2,3,4")
    out, err = build.communicate(timeout=60)
    assert (build.returncode, out) == (0, "2\n"), err


def test_with_no_cpu_free_they_wait_and_say_so_once(cluster: Cluster) -> None:
    assert cluster.is_free()
    cluster.tell("hold")
    cluster.tell("hold")
    waiting = cluster.build("ray:2", "1,2,3,4")
    assert waiting.stderr is not None
    assert waiting.stderr.readline() == WAITING
    time.sleep(1)
    assert waiting.poll() is None
    cluster.tell("release")
    _, err = waiting.communicate(timeout=60)
    cluster.tell("release")
    assert (waiting.returncode, err) == (0, "")


def test_two_builds_of_two_workers_share_two_cpus(cluster: Cluster) -> None:
    assert cluster.is_free()
    builds = [cluster.build("ray:2", "1,2,3,4", seconds=0.2) for _ in range(2)]
    for build in builds:
        _, err = build.communicate(timeout=60)
        assert build.returncode == 0, err
    assert cluster.is_free()


def test_more_workers_than_cpus_are_as_many_as_there_are(cluster: Cluster) -> None:
    out, err = cluster.build("ray:5", "1,2,3").communicate(timeout=60)
    assert out == "2\n"
    assert err.startswith("5 workers were asked for, but the cluster has 2 CPUs: 2 workers start\n")


@pytest.mark.parametrize("how", ["error", "interrupt"])
def test_an_error_or_an_interrupt_gives_the_cpus_back(cluster: Cluster, how: str) -> None:
    assert cluster.is_free()
    build = cluster.build("ray:2", "-1,2,3" if how == "error" else "1,2,3", seconds=0 if how == "error" else 30)
    assert build.stdout is not None
    build.stdout.readline()
    if how == "interrupt":
        time.sleep(2)
        build.send_signal(signal.SIGINT)
    _, err = build.communicate(timeout=20)
    assert build.returncode == (1 if how == "error" else 130), err
    assert cluster.is_free()


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_where_nothing_listens_there_is_no_cluster(monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"{scheme}127.0.0.1:{probe.getsockname()[1]}"
    monkeypatch.setenv("RAY_ADDRESS", address)
    found = pytest.raises(InputError, match=rf"no Ray cluster can be used at {address} .*refused.*RAY_ADDRESS")
    with found, open_workers(address if scheme else "ray:2"):
        pass


@pytest.mark.parametrize("address", ["http://127.0.0.1:8265", "head", "local"])
def test_what_is_no_address_of_a_cluster_is_refused(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    found = pytest.raises(InputError, match=f"{address} is no address of a Ray cluster: expected host:port")
    with found, open_workers("ray"):
        pass


PRIVATE = """
from dataproc.workers import open_workers
from manifest.errors import run_command

def main():
    with open_workers("local:1"):
        pass

exit(run_command(main))
"""


def test_a_ray_that_cannot_be_started_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    environment = {**os.environ, "RAY_TMPDIR": str(tmp_path / "file" / "below")}
    done = subprocess.run([sys.executable, "-c", PRIVATE], env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("error: Ray could not be started on this machine (")
    assert len(done.stderr.splitlines()) == 1
