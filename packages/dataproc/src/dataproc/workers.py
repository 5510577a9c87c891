"""Two verbs for distribution, on this process or on Ray; the algorithms know nothing of either.

    map(task, items, notes=…)                      one result per item
    exchange(scatter, items, gather, partitions=…) a shuffle by key through files, then one result per partition

A task is a picklable function from an item to a small record (a `Result`); data goes from file to file, never through
the driver. The record of a finished task is written to `notes`, so the same call after a kill does only what is
missing. Results come back in the order of the items, whatever finished first.
"""

from __future__ import annotations

import ctypes
import os
import re
import secrets
import shutil
import socket
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import pyarrow as pa

from dataproc import progress
from dataproc.shuffle import Scattered, partition_batches
from manifest.errors import InputError, WinnowError
from manifest.record import Model

I = TypeVar("I")  # noqa: E741
R = TypeVar("R", bound=Model)

Task = Callable[[], None]

QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
RETRIES = 3
PATIENCE_S = 10.0
"""So long no word is lost over a cluster that has no CPU to give."""
KNOCK_S = 5.0
WAIT_VARIABLE = "RAY_gcs_server_port_wait_time_s"
"""In Ray 2.60 a number of attempts to connect, each of up to 40 s."""
MEMORY_BYTES = 600_000_000
OBJECT_STORE_BYTES = 100_000_000  # data goes through files, so Ray's object store holds only task records


class Workers(ABC):
    """Something that runs tasks. memory_bytes: what a task should make do with, beside the interpreter and one batch of
    documents; it shapes how fine the work is cut, not what comes out.
    """

    count: int
    memory_bytes: int = MEMORY_BYTES

    @abstractmethod
    def _run(self, tasks: Sequence[Task]) -> Iterator[None]:
        """Runs every task; yields once per finished one. A failing task raises here."""

    def map(self, task: Callable[[I], R], items: Sequence[I], *, result: type[R], notes: Path, label: str) -> list[R]:
        """Runs `task` on every item that has no note yet.

        notes: a directory; result i is in `i.json`. Raises what a task raises.
        """
        notes.mkdir(parents=True, exist_ok=True)
        files = [notes / f"{index:06d}.json" for index in range(len(items))]
        missing = [index for index, file in enumerate(files) if not file.is_file()]
        tasks = [partial(_run_and_note, task, items[index], files[index]) for index in missing]
        for _ in progress.track(self._run(tasks), label=label, total=len(tasks)):
            pass
        return [result.model_validate_json(file.read_bytes()) for file in files]

    def exchange(
        self,
        scatter: Callable[[I, Path], None],
        items: Sequence[I],
        gather: Callable[[int, Scattered], R],
        *,
        partitions: int,
        result: type[R],
        scratch: Path,
        label: str,
    ) -> list[R]:
        """A shuffle: `scatter(item, file)` writes rows by partition (shuffle.write_partitions); `gather(p, rows)` gets
        all rows of partition p, in order of the items. A lost worker costs one item or one partition.
        """
        files = self.scatter(scatter, items, scratch=scratch, label=label)
        gathered = self.map(
            partial(_gather, gather, files), range(partitions), result=result, notes=scratch / "gathered", label=label
        )
        shutil.rmtree(scratch / "scattered")
        (scratch / "scattered").mkdir()
        return gathered

    def scatter(
        self, scatter: Callable[[I, Path], None], items: Sequence[I], *, scratch: Path, label: str
    ) -> tuple[Path, ...]:
        """The first half of `exchange`: one file per item, cut by partition."""
        (scratch / "scattered").mkdir(parents=True, exist_ok=True)
        files = tuple(scratch / "scattered" / f"{index:06d}.arrow" for index in range(len(items)))
        self.map(
            partial(_scatter, scatter),
            list(zip(items, files, strict=True)),
            result=Done,
            notes=scratch / "scatter",
            label=label,
        )
        return files


_TRIM = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's


class Done(Model):
    """The result of a task that only writes files."""


def _run_and_note(task: Callable[[Any], Model], item: Any, note: Path) -> None:
    aside = note.with_suffix(f".{os.getpid()}.tmp")
    aside.write_bytes(task(item).model_dump_json().encode())
    aside.replace(note)  # not synced to the disk, for neither is what it speaks of (see stage.start)
    _release()


def _release() -> None:
    """Gives free memory back to the system. Allocators keep what a task has used, and the next one wants other sizes:
    a million small documents in one process peak at 530 MB with this and at 810 MB without.
    """
    pa.default_memory_pool().release_unused()
    if _TRIM is not None:
        _TRIM(0)


def _scatter(scatter: Callable[[Any, Path], None], item: tuple[Any, Path]) -> Done:
    scatter(*item)
    return Done()


def _gather(gather: Callable[[int, Scattered], R], files: tuple[Path, ...], partition: int) -> R:
    return gather(partition, partition_batches(files, partition))


class Serial(Workers):
    """Everything in this process, one task after the other."""

    count = 1

    def __init__(self, memory_bytes: int = MEMORY_BYTES) -> None:
        self.memory_bytes = memory_bytes

    def _run(self, tasks: Sequence[Task]) -> Iterator[None]:
        for task in tasks:
            yield task()


class Ray(Workers):
    """Ray actors that live as long as this, so that compiled kernels are loaded once. `close` gives their CPUs back.

    An actor gets work once the cluster has a CPU for it. One that dies is replaced, and its task is given to whichever
    actor is free: tasks write aside and rename.
    """

    def __init__(self, count: int, memory_bytes: int = MEMORY_BYTES) -> None:
        self.memory_bytes = memory_bytes
        cpus = _cluster_cpus()
        if count > cpus:
            progress.say(f"{count} workers were asked for, but the cluster has {cpus} CPUs: {cpus} workers start")
        self.count = min(count, cpus)
        self._idle: list[Any] = []
        self._busy: dict[Any, Any] = {}  # by the call that they carry out: a task, or just to say that they are there
        self._patient = False
        for _ in range(self.count):
            self._hire()

    def close(self) -> None:
        """Ends all actors, whatever they do."""
        import ray

        for actor in (*self._idle, *self._busy.values()):
            ray.kill(actor)

    def _hire(self) -> None:
        import ray

        actor = ray.remote(num_cpus=1)(_Worker).remote()
        self._busy[actor.ready.remote()] = actor

    def _replace(self, dead: Any) -> None:
        """A machine that is lost takes several actors along, so the idle ones have to answer again."""
        import ray

        ray.kill(dead)  # it may be out of reach only
        self._busy |= {actor.ready.remote(): actor for actor in self._idle}
        self._idle.clear()
        self._hire()

    def _run(self, tasks: Sequence[Task]) -> Iterator[None]:
        import ray

        waiting = list(reversed(tasks))
        running: dict[Any, Task] = {}
        deaths: Counter[Task | None] = Counter()  # None: of actors that had no task
        while waiting or running:
            while waiting and self._idle:
                actor, task = self._idle.pop(), waiting.pop()
                call = actor.run.remote(task)
                self._busy[call], running[call] = actor, task
            call = self._next_call(impatient=not running)
            actor, done = self._busy.pop(call), running.pop(call, None)
            try:
                ray.get(call)
            except ray.exceptions.RayTaskError as error:
                self._idle.append(actor)
                if done is None:  # left from an earlier run, which has raised its own error
                    continue
                if running:  # they would write behind our back; and what they finish is noted
                    ray.wait(list(running), num_returns=len(running))
                raise error.cause if isinstance(error.cause, Exception) else error from None
            except ray.exceptions.RayError as error:
                self._replace(actor)
                deaths[done] += 1
                self._check(deaths[done], done, error)
                if done is not None:
                    waiting.append(done)
                continue
            self._idle.append(actor)
            deaths[done] = 0
            if done is not None:
                yield None

    def _next_call(self, *, impatient: bool) -> Any:
        """The next of the calls that is over. impatient: if that takes long, the user hears why, once."""
        import ray

        if impatient and not self._patient:
            done, _ = ray.wait(list(self._busy), timeout=PATIENCE_S)
            if done:
                return done[0]
            self._patient = True
            progress.say("waiting for a worker to start: other work may hold the CPUs of the Ray cluster")
        return ray.wait(list(self._busy))[0][0]

    def _check(self, deaths: int, task: Task | None, error: Exception) -> None:
        """Raises WinnowError if workers have died too often over a task, or, without one, one after the other."""
        if deaths > (RETRIES if task is not None else RETRIES + self.count):
            where = "over the same task" if task is not None else "before they got work"
            raise WinnowError(
                f"a worker died {deaths} times {where}, perhaps for want of memory; run the same command again with "
                f"fewer workers: it continues from here ({str(error).strip()})"
            ) from error


class _Worker:
    """Runs tasks in a Ray worker process."""

    def ready(self) -> None:
        """Returns once the worker runs."""

    def run(self, task: Task) -> None:
        task()


@contextmanager
def open_workers(spec: str, memory_bytes: int = MEMORY_BYTES) -> Iterator[Workers]:
    """The workers that a command names.

    serial        this process
    local:N       N workers on a Ray that is started here and stopped afterwards
    ray, ray:N    the running cluster at RAY_ADDRESS (or on this machine), all its CPUs or N of them
    ray://…       the running cluster there

    On a cluster of several machines the store lies on a file system that all of them share. Raises InputError for
    another spec, or if no cluster answers.
    """
    kind, _, count = spec.partition(":")
    if spec == "serial":
        yield Serial(memory_bytes)
    elif kind == "local" and count.isdecimal() and int(count) > 0:
        with private_ray(int(count)), closing(Ray(int(count), memory_bytes)) as workers:
            yield workers
    elif spec == "ray" or spec.startswith("ray://"):
        with _running_ray(spec), closing(Ray(_cluster_cpus(), memory_bytes)) as workers:
            yield workers
    elif kind == "ray" and count.isdecimal() and int(count) > 0:
        with _running_ray("ray"), closing(Ray(int(count), memory_bytes)) as workers:
            yield workers
    else:
        raise InputError(f"--workers {spec}: expected serial, local:N (such as local:2), ray, ray:N or ray://host:port")


def count_of(spec: str) -> int:
    """How many workers a spec asks for, as far as it says: 1 where only the cluster knows."""
    count = spec.partition(":")[2]
    return int(count) if count.isdecimal() and int(count) else 1


@contextmanager
def private_ray(workers: int, *, dashboard: bool = False) -> Iterator[str | None]:
    """A Ray for this process alone, with so many CPUs: whoever does not inherit its token is refused.

    Gives the URL of its dashboard, on 127.0.0.1, if it is to have one.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["RAY_AUTH_MODE"] = "token"
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    import ray  # after the environment, which Ray reads when it is imported

    options: dict[str, Any] = {"include_dashboard": dashboard, "dashboard_host": "127.0.0.1", **QUIET}
    with _any_agent_port(ray):
        context = ray.init("local", num_cpus=workers, object_store_memory=OBJECT_STORE_BYTES, **options)
    try:
        yield f"http://{context.dashboard_url}" if dashboard else None
    finally:
        ray.shutdown()


def ray_address() -> str:
    """The host:port of the Ray that this process is connected to, as RAY_ADDRESS has it."""
    import ray

    return str(ray.get_runtime_context().gcs_address)


@contextmanager
def _any_agent_port(ray: Any) -> Iterator[None]:
    """Within it, a Ray that is started leaves port 52365 to others.

    What starts a Ray's jobs listens there and on no other, so of two Rays on a machine the second takes none; `ray
    start` has a flag for it, and ray.init has not.
    """
    parameter = ray._private.parameter
    original = parameter.RayParams
    parameter.RayParams = partial(original, dashboard_agent_listen_port=None)
    try:
        yield
    finally:
        parameter.RayParams = original


@contextmanager
def _running_ray(spec: str) -> Iterator[None]:
    import ray

    _join(ray, spec if spec != "ray" else os.environ.get("RAY_ADDRESS") or "auto")
    try:
        yield
    finally:
        ray.shutdown()


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


def _cluster_cpus() -> int:
    import ray

    return max(1, sum(int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]))
