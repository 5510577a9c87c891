"""Two verbs for distribution, on this process or on Ray; the algorithms know nothing of either.

    map(task, items, notes=…)                      one result per item
    exchange(scatter, items, gather, partitions=…) a shuffle by key through files, then one result per partition

A task is a picklable function from an item to a small record (a `Result`); data goes from file to file, never through
the driver. The record of a finished task is written to `notes`, so the same call after a kill does only what is
missing. Results come back in the order of the items, whatever finished first.
"""

from __future__ import annotations

import os
import secrets
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from dataproc import progress
from dataproc.shuffle import Scattered, partition_batches
from manifest.errors import InputError, WinnowError
from manifest.record import Model

I = TypeVar("I")  # noqa: E741
R = TypeVar("R", bound=Model)

QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
RETRIES = 3
OBJECT_STORE_BYTES = 100_000_000  # data goes through files, so Ray's object store holds only task records


class Workers(ABC):
    """Something that runs tasks."""

    count: int

    @abstractmethod
    def _run(self, tasks: Sequence[Callable[[], None]]) -> Iterator[None]:
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


class Done(Model):
    """The result of a task that only writes files."""


def _run_and_note(task: Callable[[Any], Model], item: Any, note: Path) -> None:
    aside = note.with_suffix(f".{os.getpid()}.tmp")
    aside.write_bytes(task(item).model_dump_json().encode())
    aside.replace(note)  # not synced to the disk, for neither is what it speaks of (see stage.start)


def _scatter(scatter: Callable[[Any, Path], None], item: tuple[Any, Path]) -> Done:
    scatter(*item)
    return Done()


def _gather(gather: Callable[[int, Scattered], R], files: tuple[Path, ...], partition: int) -> R:
    return gather(partition, partition_batches(files, partition))


class Serial(Workers):
    """Everything in this process, one task after the other."""

    count = 1

    def _run(self, tasks: Sequence[Callable[[], None]]) -> Iterator[None]:
        for task in tasks:
            yield task()


class Ray(Workers):
    """Long-lived Ray actors, one per worker, so that compiled kernels are loaded once."""

    def __init__(self, count: int) -> None:
        import ray

        self.count = count
        # An actor that dies is started again and its task repeated: tasks write aside and rename.
        actor = ray.remote(num_cpus=1, max_restarts=-1, max_task_retries=RETRIES)(_Worker)
        self._actors = [actor.remote() for _ in range(count)]

    def _run(self, tasks: Sequence[Callable[[], None]]) -> Iterator[None]:
        import ray

        waiting = list(reversed(tasks))
        running: dict[Any, Any] = {}
        for actor in self._actors[: len(tasks)]:
            running[actor.run.remote(waiting.pop())] = actor
        try:
            while running:
                (done,), _ = ray.wait(list(running), num_returns=1)
                actor = running.pop(done)
                ray.get(done)
                if waiting:
                    running[actor.run.remote(waiting.pop())] = actor
                yield None
        except ray.exceptions.RayTaskError as error:
            if running:  # they would write behind our back; and what they finish is noted
                ray.wait(list(running), num_returns=len(running))
            raise error.cause if isinstance(error.cause, Exception) else error from None
        except ray.exceptions.RayActorError as error:
            raise WinnowError(
                f"a worker died {RETRIES + 1} times over the same task, perhaps for want of memory; run the same "
                "command again with fewer workers: it continues from here"
            ) from error


class _Worker:
    """Runs tasks in a Ray worker process."""

    def run(self, task: Callable[[], None]) -> None:
        task()


@contextmanager
def open_workers(spec: str) -> Iterator[Workers]:
    """The workers that a command names.

    serial        this process
    local:N       N workers on a Ray that is started here and stopped afterwards
    ray           the running cluster at RAY_ADDRESS (or on this machine), all its CPUs
    ray://…       the running cluster there

    On a cluster of several machines the store lies on a file system that all of them share. Raises InputError for
    another spec, or if no cluster answers.
    """
    kind, _, count = spec.partition(":")
    if spec == "serial":
        yield Serial()
    elif kind == "local" and count.isdecimal() and int(count) > 0:
        with _own_ray(int(count)):
            yield Ray(int(count))
    elif spec == "ray" or spec.startswith("ray://"):
        with _running_ray(spec):
            yield Ray(_cluster_cpus())
    else:
        raise InputError(f"--workers {spec}: expected serial, local:N (such as local:2), ray or ray://host:port")


@contextmanager
def _own_ray(workers: int) -> Iterator[None]:
    """A Ray for this process alone: whoever does not inherit its token is refused."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["RAY_AUTH_MODE"] = "token"
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    import ray  # after the environment, which Ray reads when it is imported

    ray.init("local", num_cpus=workers, object_store_memory=OBJECT_STORE_BYTES, include_dashboard=False, **QUIET)
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _running_ray(spec: str) -> Iterator[None]:
    import ray

    try:
        ray.init("auto" if spec == "ray" else spec, **QUIET)
    except ConnectionError as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"--workers {spec}: no Ray cluster answers ({reason}); start one, or use local:N") from error
    try:
        yield
    finally:
        ray.shutdown()


def _cluster_cpus() -> int:
    import ray

    return max(1, int(ray.cluster_resources().get("CPU", 1)))
