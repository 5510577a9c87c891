"""How far a long piece of work is: for the user on stderr, a bar with time left on a terminal and plain lines
elsewhere; and for whoever listens (manifest.progress)."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from manifest.progress import PLAIN_EVERY_S, Progress, note, report

T = TypeVar("T")

console = Console(stderr=True, highlight=False, soft_wrap=True)


def say(line: str) -> None:
    """One line on stderr."""
    console.print(line, markup=False)
    note(line)


def track(items: Iterable[T], *, label: str, total: int, unit: str = "tasks") -> Iterator[T]:
    """Passes `items` on, showing how many of `total` are done. Nothing is shown for work of a single item."""
    told = _told(items, label, total, unit)
    if total <= 1:
        yield from items
    elif console.is_terminal:
        yield from _bar(told, label, total)
    else:
        yield from _lines(told, label, total)


def _told(items: Iterable[T], label: str, total: int, unit: str) -> Iterator[T]:
    """Reports to the listeners."""
    start = time.monotonic()
    report(Progress(stage=label, done=0, total=total, unit=unit))
    for done, item in enumerate(items, 1):
        left_s = (time.monotonic() - start) / done * (total - done)
        report(Progress(stage=label, done=done, total=total, unit=unit, left_s=left_s))
        yield item


def _bar(items: Iterable[T], label: str, total: int) -> Iterator[T]:
    columns = [TextColumn("  {task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()]
    with Bar(*columns, TextColumn("left"), TimeRemainingColumn(), console=console, transient=True) as bar:
        task = bar.add_task(label, total=total)
        for item in items:
            bar.advance(task)
            yield item


def _lines(items: Iterable[T], label: str, total: int) -> Iterator[T]:
    start = last = time.monotonic()
    for done, item in enumerate(items, 1):
        now = time.monotonic()
        if now - last >= PLAIN_EVERY_S and done < total:
            last = now
            left = (now - start) / done * (total - done)
            print(f"  {label}: {done}/{total}, about {left:.0f} s left", file=sys.stderr, flush=True)
        yield item
