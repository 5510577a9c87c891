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
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa

from dataproc import progress
from dataproc.lean import keep_what_is_imported
from dataproc.shuffle import Scattered, partition_batches
from manifest.record import Model

I = TypeVar("I")  # noqa: E741
R = TypeVar("R", bound=Model)

Task = Callable[[], None]

MEMORY_BYTES = 600_000_000
KEPT_BYTES = 400_000_000
"""What a process may keep between tasks, free or not."""
_STATM, _PAGE_BYTES = Path("/proc/self/statm"), os.sysconf("SC_PAGE_SIZE")
_TRIM = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's


class Workers(ABC):
    """Something that runs tasks. memory_bytes: what a task should make do with, beside the interpreter and one batch of
    documents; it shapes how fine the work is cut, not what comes out.
    """

    count: int
    memory_bytes: int = MEMORY_BYTES

    def partitions(self, rows: int, bytes_per_row: int) -> int:
        """Into how many partitions an exchange of so many rows is cut, so that a task has memory for its own."""
        return max(1, -(-rows * bytes_per_row // self.memory_bytes))

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


class Done(Model):
    """The result of a task that only writes files."""


def _run_and_note(task: Callable[[Any], Model], item: Any, note: Path) -> None:
    keep_what_is_imported()
    aside = note.with_suffix(f".{os.getpid()}.tmp")
    aside.write_bytes(task(item).model_dump_json().encode())
    aside.replace(note)  # not synced to the disk, for neither is what it speaks of (see stage.start)
    _release()


def _release() -> None:
    """Gives free memory back to the system, where a process has much of it.

    Allocators keep what a task has used, and the next one wants other sizes: a million small documents peak at 550 MB
    with this and at 810 MB without. Memory that is asked for again costs: a tenth of a build's CPU time, did every task
    give it back.
    """
    if _resident_bytes() > KEPT_BYTES:
        pa.default_memory_pool().release_unused()
        if _TRIM is not None:
            _TRIM(0)


def _resident_bytes() -> int:
    """Of this process; 0 where the system does not say."""
    return int(_STATM.read_text().split()[1]) * _PAGE_BYTES if _STATM.exists() else 0


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
