"""How far a long piece of work is, for whoever listens: a terminal is one listener, the HTTP service another.

    work ──report(Progress), note(line)──► listeners

A listener hears of a stage at most twice per second, but always its beginning and its end.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pydantic import Field

from manifest.record import Model

EVERY_S = 0.5
PLAIN_EVERY_S = 10.0
"""Where there is no terminal: a line so often."""


class Progress(Model):
    """`done` of `total` units of a stage; left_s: the time that is left, in seconds, if it can be told."""

    stage: str
    done: int = Field(ge=0)
    total: int = Field(ge=0)
    unit: str
    left_s: float | None = None


Listener = Callable[[Progress | str], None]
"""Gets progress, and lines that are said to the user."""

_listeners: list[Listener] = []
_heard: dict[str, tuple[float, int]] = {}


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Within the block, `listener` hears what the work of this process reports. What it raises ends the work."""
    _heard.clear()
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


def report(progress: Progress) -> None:
    """Tells the listeners how far a stage is."""
    now = time.monotonic()
    at, done = _heard.get(progress.stage, (float("-inf"), -1))
    ends = progress.done == progress.total and done != progress.total
    if _listeners and (ends or now - at >= EVERY_S):
        _heard[progress.stage] = now, progress.done
        for listener in tuple(_listeners):
            listener(progress)


def note(line: str) -> None:
    """Tells the listeners what the user is told."""
    for listener in tuple(_listeners):
        listener(line)


def span(seconds: float) -> str:
    """A time as a person says it: 45 s, 12 min, 3.5 h."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
