"""What a person sees while a run trains, all of it on stderr: a bar on a terminal, a line every ten seconds elsewhere.

It follows metrics.jsonl, so it is the same wherever the workers are.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar
from zlib import crc32

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as Bar

from manifest.progress import PLAIN_EVERY_S, Progress, note, report, span
from trainer.events import EVENTS
from trainer.run import METRICS, Run
from trainer.tensorboard import EventFile
from trainer.timeline import tokens_before

T = TypeVar("T")

console = Console(stderr=True, highlight=False, soft_wrap=True)


def say(line: str) -> None:
    """One line on stderr."""
    console.print(line, markup=False)
    note(line)


def track(
    items: Iterable[T], *, label: str, total: int, unit: str, share: Callable[[T], float] | None = None
) -> Iterator[T]:
    """Passes `items` on, showing how many of `total` are done, and what time is left.

    share: what part of the work an item is, where they are not alike.
    """
    began = said = time.monotonic()
    part = 0.0
    with Bar(*Bar.get_default_columns(), console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(label, total=total)
        for done, item in enumerate(items, 1):
            yield item
            now = time.monotonic()
            part = done / total if share is None else part + share(item)
            left_s = (now - began) * max(1 / part - 1, 0.0)
            bar.advance(task)
            report(Progress(stage=label, done=done, total=total, unit=unit, left_s=left_s))
            if not console.is_terminal and now - said >= PLAIN_EVERY_S:
                said = now
                console.print(f"  {label} {done:,}/{total:,}, {span(left_s)} left", markup=False)


class Follower:
    """Reads the rows that a file of JSON lines has got since the last look, each once.

    A half-written last line waits for the next look. Of another file under the name, as run.rewind makes it, the lines
    that it begins with and that were read before are not given again.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._inode = self._offset = 0
        self._read: list[int] = []  # a checksum of each line

    def rows(self) -> list[dict[str, Any]]:
        if not self.file.is_file():
            return []
        known: list[int] = []
        with self.file.open("rb") as file:
            inode = os.fstat(file.fileno()).st_ino
            if inode != self._inode:
                self._inode, self._offset = inode, 0
                known, self._read = self._read, []
            file.seek(self._offset)
            whole, end, _ = file.read().rpartition(b"\n")
        self._offset += len(whole) + len(end)
        lines = whole.splitlines()
        sums = [crc32(line) for line in lines]
        self._read += sums
        new = next((at for at, pair in enumerate(zip(sums, known, strict=False)) if pair[0] != pair[1]), None)
        return [json.loads(line) for line in lines[min(len(sums), len(known)) if new is None else new :]]


class Rate:
    """Tokens per second of a run, from its first row on: start-up is not training.

    Of the tokens of each row's own step, so that a run that goes back, or passes steps over, does not count backwards
    or what it has not read.
    """

    def __init__(self) -> None:
        self._started: float | None = None
        self._tokens = 0.0

    def add(self, rows: list[dict[str, Any]], now: float) -> None:
        """Rows that have come by `now` (seconds)."""
        if self._started is None:
            self._started = now
            return
        self._tokens += sum(row["tokens_per_s"] * row["seconds"] for row in rows)

    def per_second(self, row: dict[str, Any], now: float) -> float:
        """The rate; that of the newest row in the first second."""
        elapsed = now - self._started if self._started is not None else 0.0
        return float(self._tokens / elapsed if elapsed > 1 and self._tokens else row["tokens_per_s"])


def spiked(event: dict[str, Any]) -> str:
    """A spike (events.py), for a person."""
    what = {"report": "", "skip": "; it is not learned", "rewind": ""}[event["action"]]
    if event["action"] == "rewind":
        first, stop = event["skipped"]
        what = f"; back to step {event['to']}, and past the steps {first} to {stop - 1}"
    elif "after_rewinds" in event:
        what = f"; learned, after {event['after_rewinds']} rewinds in a row: the loss may stay on another level"
    above = f"above the limit of {event['limit']:.3f}"
    if event.get("of") == "gradient":
        above = f"the gradient's norm {event['grad_norm']:.3f} {above}"
    worst = event["worst"][0]
    return (
        f"spike at step {event['step']}: loss {event['loss']:.3f}, {above}{what}. Its "
        f"worst window ({worst['loss']:.3f}) reads {', '.join(worst['documents'][:3])}; all {event['documents']} "
        f"documents are in {event['table']}"
    )


class Watch:
    """Shows the progress of a run; `look` is called a few times per second. Use as a context manager."""

    def __init__(self, directory: Path, run: Run, *, tensorboard: bool = False) -> None:
        self._total = run.timeline.total_steps
        self._tokens = tokens_before(run.timeline, self._total)
        self._follower = Follower(directory / METRICS)
        self._events = Follower(directory / EVENTS)
        earlier = self._follower.rows()  # what earlier starts measured
        first = earlier[-1]["step"] + 1 if earlier else 0
        self._tensorboard = EventFile(directory, first) if tensorboard else None
        self._events.rows()
        self._bar = Bar(
            TextColumn("step {task.completed:.0f}/{task.total:.0f}"),
            BarColumn(),
            TextColumn("{task.description}"),
            console=console,
            transient=True,
        )
        self._task: TaskID | None = None
        self._said = time.monotonic()
        self._rate = Rate()

    def __enter__(self) -> Self:
        if console.is_terminal:
            self._bar.start()
            self._task = self._bar.add_task("starting the workers", total=self._total)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._bar.stop()

    def look(self) -> None:
        """Shows what is new."""
        for event in self._events.rows():
            if event["event"] == "spike":
                say(spiked(event))
        rows = self._follower.rows()
        if self._tensorboard is not None:
            self._tensorboard.add(rows)
        now = time.monotonic()
        if not rows:
            return
        self._rate.add(rows, now)
        row = rows[-1]
        done = row["step"] + 1
        report(Progress(stage="train", done=done, total=self._total, unit="steps", left_s=self._left_s(row, now)))
        if self._task is not None:
            self._bar.update(self._task, completed=done, description=self._state(row, now))
        elif now - self._said >= PLAIN_EVERY_S:
            self._said = now
            console.print(f"  step {done}/{self._total}  {self._state(row, now)}", markup=False)

    def _left_s(self, row: dict[str, Any], now: float) -> float | None:
        rate = self._rate.per_second(row, now)
        return (self._tokens - row["tokens"]) / rate if rate else None

    def _state(self, row: dict[str, Any], now: float) -> str:
        left_s = self._left_s(row, now)
        left = f", {span(left_s)} left" if left_s is not None else ""
        loss = "nothing to learn" if row["loss"] is None else f"loss {row['loss']:.3f}"
        return f"{loss}, {self._rate.per_second(row, now):,.0f} tokens/s{left}"
