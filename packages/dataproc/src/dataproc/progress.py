"""How far a long piece of work is, on stderr: a bar with time left on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

PLAIN_EVERY_S = 10.0

T = TypeVar("T")

console = Console(stderr=True, highlight=False, soft_wrap=True)


def say(line: str) -> None:
    """One line on stderr."""
    console.print(line, markup=False)


def track(items: Iterable[T], *, label: str, total: int) -> Iterator[T]:
    """Passes `items` on, showing how many of `total` are done. Nothing is shown for work of a single item."""
    if total <= 1:
        yield from items
    elif console.is_terminal:
        yield from _bar(items, label, total)
    else:
        yield from _lines(items, label, total)


def _bar(items: Iterable[T], label: str, total: int) -> Iterator[T]:
    columns = [TextColumn("  {task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()]
    with Progress(*columns, TextColumn("left"), TimeRemainingColumn(), console=console, transient=True) as bar:
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
