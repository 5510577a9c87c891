"""Runs a run's workers, on this machine or on Ray (whose one door this is), until all are done or one fails.

    local:N         N processes on this machine, which meet on its loopback interface
    ray, ray:N      N Ray actors on the cluster that RAY_ADDRESS names, or on a Ray started here and stopped afterwards
    ray://host:port a running cluster

On Ray N is by default one per GPU, or per CPU where there is none. The store lies where all workers see it. If a worker
fails, the others are stopped: they would wait for it forever. All of them end when this process does.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import IO, Any

from manifest.errors import InputError, WinnowError
from manifest.store import LocalStore
from trainer.place import STOP_SIGNALS, Place, free_port, process_environment
from trainer.run import Run

POLL_S = 0.2
LAST_WORDS = 15
"""Lines of a worker's log that an error shows."""

Tick = Callable[[], None]
"""Called while the workers run."""

Asked = Callable[[], bool]
"""Whether the run was asked to stop."""


class WorkerError(WinnowError):
    """A worker ended before its work was done."""


@dataclass(frozen=True)
class Workers:
    """`address`: None for processes on this machine, "ray" or a ray:// address. `count`: None for all there are."""

    address: str | None
    count: int | None


def parse_workers(text: str) -> Workers:
    """--workers. Raises InputError."""
    if text == "local":
        return Workers(None, None)
    if match := re.fullmatch(r"local:([1-9]\d*)", text):
        return Workers(None, int(match[1]))
    if match := re.fullmatch(r"ray(?::([1-9]\d*))?", text):
        return Workers("ray", int(match[1]) if match[1] else None)
    if text.startswith("ray://"):
        return Workers(text, None)
    raise InputError(f"--workers {text}: expected local, local:N (such as local:2), ray, ray:N or ray://host:port")


def launch(workers: Workers, store: LocalStore, run: Run, *, tick: Tick, asked: Asked) -> None:
    """Runs the workers to the end of the run, or, once `asked`, to the end of a step.

    Raises WorkerError, or the WinnowError that a worker raised.
    """
    # More workers than windows in a step would only read padding.
    most = min(pace.windows_per_step for pace in run.timeline.paces)
    if workers.address is not None:
        _run_on_ray(workers, most, store, run, tick, asked)
        return
    count = workers.count or min(most, len(os.sched_getaffinity(0)))
    if count > most:
        raise InputError(f"--workers local:{count}: a step has {most} windows, so at most {most} workers have work")
    _run_here(count, store, run, tick, asked)


def _run_here(count: int, store: LocalStore, run: Run, tick: Tick, asked: Asked) -> None:
    port = free_port()
    logs = store.root / run.path / "logs"
    logs.mkdir(exist_ok=True)
    processes: list[subprocess.Popen[bytes]] = []
    try:
        with _blocked(STOP_SIGNALS):
            for rank in range(count):
                place = Place(rank, count, rank, "127.0.0.1", port)
                with (logs / f"{rank}.log").open("wb") as log:
                    processes.append(_start(store, run, place, log))
        _wait(processes, logs, tick, asked)
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.wait()


@contextmanager
def _blocked(signals: frozenset[signal.Signals]) -> Iterator[None]:
    """Processes started here hold these signals back until they are ready for them (worker.main)."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start(store: LocalStore, run: Run, place: Place, log: IO[bytes]) -> subprocess.Popen[bytes]:
    """A worker in a session of its own, so that ^C reaches this process only, which passes it on."""
    loopback = {"GLOO_SOCKET_IFNAME": "lo"} if sys.platform == "linux" else {}
    return subprocess.Popen(
        [sys.executable, "-m", "trainer.worker", str(store.root), run.name, json.dumps(asdict(place))],
        stdin=subprocess.PIPE,  # held open: it closes when this process ends, however it ends
        stdout=log,
        stderr=subprocess.STDOUT,
        env={**os.environ, **process_environment(), **loopback},
        start_new_session=True,
    )


def _wait(processes: list[subprocess.Popen[bytes]], logs: Path, tick: Tick, asked: Asked) -> None:
    passed_on = False
    while True:
        codes = [process.poll() for process in processes]
        if any(codes):
            raise _cause({rank: code for rank, code in enumerate(codes) if code}, logs)
        tick()
        if None not in codes:
            return
        if asked() and not passed_on:
            passed_on = True
            for process in processes:
                process.send_signal(signal.SIGTERM)
        time.sleep(POLL_S)


def _cause(codes: Mapping[int, int], logs: Path) -> WinnowError:
    """What the failed workers ended with: the error that one of them reported, else the last words of the first."""
    said = {rank: (logs / f"{rank}.log").read_text(encoding="utf-8", errors="replace") for rank in codes}
    for rank, text in said.items():
        _, found, message = ("\n" + text).rpartition("\nerror: ")
        if found:
            return (InputError if codes[rank] == InputError.exit_code else WinnowError)(message.strip())
    rank, code = next(iter(codes.items()))
    if code == InputError.exit_code:  # it had a message, but where its log lies there was no room for it
        return InputError(f"worker {rank} could not go on, nor write why into {logs}; is the disk full?")
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    last = "\n".join(said[rank].splitlines()[-LAST_WORDS:])
    return WorkerError(
        f"worker {rank} {how}; the same command continues from the last checkpoint. Its last words, from "
        f"{logs / f'{rank}.log'}:\n{last or '(none)'}"
    )


class _Actor:
    """A worker in a Ray actor. `stop` is answered while `train` runs: the actor has two threads."""

    def __init__(self) -> None:
        self.asked = False

    def meeting_point(self) -> tuple[str, int]:
        """Where the others find this worker, if it is the first."""
        import ray

        address = ray.util.get_node_ip_address()
        return address, free_port(address)

    def train(self, store: str, run: str, place: Place) -> None:
        from trainer.worker import work

        work(store, run, place, lambda: self.asked)

    def stop(self) -> None:
        self.asked = True


def _run_on_ray(workers: Workers, most: int, store: LocalStore, run: Run, tick: Tick, asked: Asked) -> None:
    with _ray(workers) as ray:
        resources = ray.cluster_resources()
        gpus = int(resources.get("GPU", 0))
        count = min(workers.count or gpus or int(resources.get("CPU", 1)), most)
        make = ray.remote(
            num_cpus=1,
            num_gpus=1 if gpus else 0,
            max_concurrency=2,
            runtime_env={"env_vars": process_environment()},
        )(_Actor)
        actors = [make.remote() for _ in range(count)]
        address, port = ray.get(actors[0].meeting_point.remote())
        parts = []
        for rank, actor in enumerate(actors):
            # An actor sees only its own GPU, so it is the first on its machine.
            place = Place(rank, count, 0, address, port)
            parts.append(actor.train.remote(str(store.root), run.name, place))
        _wait_for_actors(actors, parts, tick, asked)


@contextmanager
def _ray(workers: Workers) -> Iterator[ModuleType]:
    """Ray, connected to a running cluster or to one that is started here and ends with the block.

    What is started here stays small: data and weights go through files and gloo, not through Ray.
    """
    running = workers.address if workers.address != "ray" else os.environ.get("RAY_ADDRESS")
    if running is None:
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        # Whoever does not inherit this token is refused: Ray listens on all interfaces.
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    import ray  # after the environment, which Ray reads when it is imported

    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
    try:
        if running is None:
            ray.init("local", num_cpus=workers.count, include_dashboard=False, object_store_memory=100_000_000, **quiet)
        else:
            ray.init(running, **quiet)
    except ConnectionError as error:
        raise InputError(
            f"no Ray cluster answers at {running} ({error}); start one, or use --workers local:N"
        ) from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _wait_for_actors(actors: list[Any], parts: list[Any], tick: Tick, asked: Asked) -> None:
    import ray

    passed_on = False
    while parts:
        done, parts = ray.wait(parts, num_returns=len(parts), timeout=POLL_S)
        try:
            ray.get(done)
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, WinnowError):
                raise error.cause from None
            raise WorkerError(f"a worker failed: {error}") from error
        except ray.exceptions.RayActorError as error:
            raise WorkerError(f"a worker is lost: {error}; the same command continues") from error
        if asked() and not passed_on:
            passed_on = True
            ray.get([actor.stop.remote() for actor in actors])
        tick()
