"""Runs a run's workers, on this machine or on Ray (whose one door this is), until all are done or one fails.

    local:N         N processes on this machine, which meet on its loopback interface
    ray, ray:N      N Ray actors on the cluster that RAY_ADDRESS names, or on a Ray started here and stopped afterwards
    ray://host:port a running cluster

On Ray N is by default one per GPU, or per CPU where there is none; the workers start once a cluster has room for all of
them. It counts as large as it is: one that grows on demand has to grow first. The store lies where all workers see it.
If a worker is lost, the others are stopped, for they would wait for it forever, and all are started anew (restarts.py).
All of them end when this process does.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, redirect_stdout
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import IO, Any

from manifest.errors import InputError, WinnowError
from manifest.store import LocalStore
from trainer import events, restarts
from trainer.place import STOP_SIGNALS, Place, free_port, process_environment
from trainer.progress import say
from trainer.restarts import WorkerError, restarting
from trainer.run import Run, newest

POLL_S = 0.2
PATIENCE_S = 2.0
"""So long no word is lost over a Ray cluster that is busy."""
QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
KNOCK_S = 5.0
WAIT_VARIABLE = "RAY_gcs_server_port_wait_time_s"
"""In Ray 2.60 a number of attempts to connect, each of up to 40 s."""
LAST_WORDS = 15
"""Lines of a worker's log that an error shows."""

Tick = Callable[[], None]
"""Called while the workers run."""

Asked = Callable[[], bool]
"""Whether the run was asked to stop."""


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


def launch(
    workers: Workers, store: LocalStore, run: Run, *, tick: Tick, asked: Asked, max_restarts: int = restarts.MOST
) -> None:
    """Runs the workers to the end of the run, or, once `asked`, to the end of a step.

    max_restarts: in a row, without a new checkpoint, after a worker was lost.
    Raises WorkerError, or the WinnowError that a worker raised; InputError if there is no such cluster, or it is too
    small; KeyboardInterrupt if the run was asked to stop while it waited for room on a cluster.
    """
    # More workers than windows in a step would only read padding.
    most = min(pace.windows_per_step for pace in run.timeline.paces)
    if workers.address is not None:
        attempt = partial(_run_on_ray, workers, most, store, run, tick, asked)
    else:
        count = workers.count or min(most, len(os.sched_getaffinity(0)))
        if count > most:
            raise InputError(f"--workers local:{count}: a step has {most} windows, so at most {most} workers have work")
        attempt = partial(_run_here, count, store, run, tick, asked)

    def newest_step() -> int:
        found = newest(store, run)
        return found.manifest.step if found is not None else 0  # type: ignore[attr-defined]

    def restarted(error: WorkerError, step: int, failures: int) -> None:
        why = str(error).partition(";")[0]
        say(f"{why}; going on after step {step} by itself (restart {failures} of {max_restarts} without progress)")
        events.add(store.root / run.path, "restart", step, why=str(error))

    restarting(attempt, newest_step, most=max_restarts, stopped=asked, restarted=restarted)


def _run_here(count: int, store: LocalStore, run: Run, tick: Tick, asked: Asked) -> None:
    port = free_port()
    logs = store.root / run.path / "logs"
    logs.mkdir(exist_ok=True)
    processes: list[subprocess.Popen[bytes]] = []
    try:
        with _blocked(STOP_SIGNALS):
            for rank in range(count):
                place = Place(rank, count, rank, "127.0.0.1", port)
                with _new_log(logs / f"{rank}.log").open("wb") as log:
                    processes.append(_start(store, run, place, log))
        _wait(processes, logs, tick, asked)
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.wait()


def _new_log(file: Path) -> Path:
    """A place for a log; the one that is there is kept beside it, for it may say why a worker was lost."""
    if file.is_file() and file.stat().st_size:
        file.replace(file.with_name(f"{file.stem}.before.log"))
    return file


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
    with _ray(workers) as ray, _gang(ray, workers.count, most, tick, asked) as (gang, bundle, count):
        actors = [_actor(ray, gang, bundle, rank) for rank in range(count)]
        with _worker_errors():
            address, port = ray.get(actors[0].meeting_point.remote())
        # An actor sees only its own GPU, so it is the first on its machine.
        places = [Place(rank, count, 0, address, port) for rank in range(count)]
        parts = [
            actor.train.remote(str(store.root), run.name, place) for actor, place in zip(actors, places, strict=True)
        ]
        _wait_for_actors(actors, parts, tick, asked)


@contextmanager
def _gang(
    ray: ModuleType, wanted: int | None, most: int, tick: Tick, asked: Asked
) -> Iterator[tuple[Any, dict[str, int], int]]:
    """Room on a cluster for all workers: where it is, what each takes, how many they are. Their actors end with it.

    All or none: two runs that each held a half of the cluster would wait for each other forever.
    """
    while True:
        bundle, count = _bundles(wanted, most, ray.nodes())
        gang = ray.util.placement_group([bundle] * count, strategy="PACK")
        try:
            if _is_there(gang, bundle, count, partial(_is_as_large, ray, wanted, most, (bundle, count)), tick, asked):
                yield gang, bundle, count
                return
        finally:
            ray.util.remove_placement_group(gang)


def _is_as_large(ray: ModuleType, wanted: int | None, most: int, before: tuple[dict[str, int], int]) -> bool:
    """Whether a cluster has room for as many workers as before: a machine that was lost counts for a while."""
    return _bundles(wanted, most, ray.nodes()) == before


def _bundles(count: int | None, most: int, nodes: list[dict[str, Any]]) -> tuple[dict[str, int], int]:
    """What a worker takes, and how many of them (by default as many as the machines have room for, at most `most`).

    Raises InputError if the machines, were they idle, had no room for as many.
    """
    machines = [node["Resources"] for node in nodes if node["Alive"]]
    has = {kind: int(sum(machine.get(kind, 0) for machine in machines)) for kind in ("CPU", "GPU")}
    bundle = {"CPU": 1, "GPU": 1} if has["GPU"] else {"CPU": 1}
    room = sum(min(int(machine.get(kind, 0)) for kind in bundle) for machine in machines)
    wanted = min(count or max(room, 1), most)
    if wanted > room:
        raise InputError(
            f"{_needs(bundle, wanted)} are needed for {wanted} workers, but the Ray cluster has {_needs(has, 1)} in "
            f"all, room for {room}; use --workers ray:{max(room, 1)}, or add machines first"
        )
    return bundle, wanted


def _needs(bundle: Mapping[str, int], count: int) -> str:
    """Such as 2 CPUs and 2 GPUs."""
    amounts = {kind: amount * count for kind, amount in bundle.items() if amount}
    return " and ".join(f"{amount} {kind}{'s' * (amount > 1)}" for kind, amount in amounts.items()) or "no CPU"


def _is_there(
    gang: Any, bundle: Mapping[str, int], count: int, as_large: Callable[[], bool], tick: Tick, asked: Asked
) -> bool:
    """Waits for the room; False once the cluster is no longer as large as when it was asked for.

    Raises KeyboardInterrupt if the run is asked to stop before it has begun.
    """
    import ray

    ready, started, said = gang.ready(), time.monotonic(), False
    while not ray.wait([ready], timeout=POLL_S)[0]:
        if asked():
            raise KeyboardInterrupt
        tick()
        if time.monotonic() - started > PATIENCE_S:
            if not as_large():
                return False
            if not said:
                said = True
                say(f"waiting for {_needs(bundle, count)} of the Ray cluster, which other work holds")
    return True


def _actor(ray: ModuleType, gang: Any, bundle: Mapping[str, int], rank: int) -> Any:
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    make = ray.remote(
        num_cpus=bundle["CPU"],
        num_gpus=bundle.get("GPU", 0),
        max_concurrency=2,
        runtime_env={"env_vars": process_environment()},
        scheduling_strategy=PlacementGroupSchedulingStrategy(gang, placement_group_bundle_index=rank),
    )
    return make(_Actor).remote()


@contextmanager
def _ray(workers: Workers) -> Iterator[ModuleType]:
    """Ray, connected to a running cluster or to one that is started here and ends with the block.

    What is started here stays small: data and weights go through files and gloo, not through Ray.
    """
    running = workers.address if workers.address != "ray" else os.environ.get("RAY_ADDRESS") or None
    if running is None:
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        # Whoever does not inherit this token is refused: Ray listens on all interfaces.
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    import ray  # after the environment, which Ray reads when it is imported

    on_sigterm = signal.getsignal(signal.SIGTERM)
    if running is not None:
        _join(ray, running)
    else:
        ray.init("local", num_cpus=workers.count, include_dashboard=False, object_store_memory=100_000_000, **QUIET)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, on_sigterm)  # Ray has put one in its place that ends this process
    with redirect_stdout(sys.stderr):  # Ray prints there what happens to its machines; results are ours
        try:
            yield ray
        finally:
            ray.shutdown()


def cluster(workers: Workers) -> AbstractContextManager[ModuleType]:
    """Ray, for other work than a run's: connected to a cluster, or started here. Raises InputError as `launch` does."""
    return _ray(workers)


def _join(ray: ModuleType, address: str) -> None:
    """Connects to a running cluster: host:port, ray://host:port or auto, which is the one on this machine.

    Raises InputError for another address, and if no cluster lets us in there. Left to itself Ray would try for a
    quarter of an hour.
    """
    match = re.fullmatch(r"(?:ray://)?\[?([^/]+?)\]?:(\d+)", address)
    if match is None and address != "auto":
        raise InputError(f"{address} is no address of a Ray cluster: expected host:port or ray://host:port")
    told_to_wait = WAIT_VARIABLE in os.environ
    try:
        if match is not None:
            socket.create_connection((match[1], int(match[2])), timeout=KNOCK_S).close()
        os.environ.setdefault(WAIT_VARIABLE, "1")
        ray.init(address, **QUIET)
    except (OSError, RuntimeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"no Ray cluster can be used at {address} ({reason}); start one, set RAY_ADDRESS to where one runs (with "
            "RAY_AUTH_MODE and RAY_AUTH_TOKEN as they are there), or use --workers local:N"
        ) from error
    finally:
        if not told_to_wait:
            os.environ.pop(WAIT_VARIABLE, None)


@contextmanager
def _worker_errors() -> Iterator[None]:
    """What a worker raised, or that it is lost, as a WinnowError."""
    import ray

    try:
        yield
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, WinnowError):
            raise error.cause from None
        raise WorkerError(f"a worker failed: {error}") from error
    except ray.exceptions.RayError as error:
        raise WorkerError(f"a worker is lost: {error}; the same command continues") from error


def _wait_for_actors(actors: list[Any], parts: list[Any], tick: Tick, asked: Asked) -> None:
    import ray

    passed_on = False
    while parts:
        done, parts = ray.wait(parts, num_returns=len(parts), timeout=POLL_S)
        with _worker_errors():
            ray.get(done)
            if asked() and not passed_on:
                passed_on = True
                ray.get([actor.stop.remote() for actor in actors])
        tick()
