"""`winnow watch`: an entry's events, shown until it has ended: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import argparse
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as Bar
from rich.text import Text

from gateway.client import Client
from gateway.commands.connection import again, connected
from gateway.commands.screen import errors, left, print_json, result
from gateway.failures import Unreachable, explained, printable
from gateway.ledger.states import ENDED, State
from gateway.messages import Build, Event, Report, Run
from manifest.errors import InputError, WinnowError
from manifest.progress import PLAIN_EVERY_S, Progress, span

AnyEntry = Build | Run | Report


def watch(arguments: argparse.Namespace) -> None:
    """The body of `winnow watch`."""
    with connected(arguments) as client:
        entry = watch_to_end(client, client.get(arguments.id), arguments)
        if arguments.json:
            print_json(entry, indent=None)
        else:
            assert entry.result is not None
            result(entry.result.path)


def watch_to_end(client: Client, entry: AnyEntry, arguments: argparse.Namespace) -> AnyEntry:
    """Shows an entry's life on stderr and returns it when it has succeeded.

    Raises InputError, WinnowError: it failed, or was cancelled. SystemExit: the user has seen enough; it goes on.
    """
    if entry.state not in ENDED:
        try:
            entry = _follow(client, entry)
        except KeyboardInterrupt:
            _left_alone(entry, arguments)
    if entry.state == "succeeded":
        return entry
    raise _ended_badly(entry)


def _follow(client: Client, entry: AnyEntry) -> AnyEntry:
    with Watch(entry.id) as shown:
        for message in client.follow(entry.id, lost=shown.lost):
            if not isinstance(message, Event):
                return message
            shown.event(message)
    raise AssertionError("the last message is the entry")


def _left_alone(entry: AnyEntry, arguments: argparse.Namespace) -> None:
    errors.print(
        Text(
            f"\nno longer watched; {entry.id} goes on. `{again(arguments, 'watch', entry.id)}` watches it again, "
            f"`{again(arguments, 'cancel', entry.id)}` ends it"
        )
    )
    raise SystemExit(130)


def _ended_badly(entry: AnyEntry) -> WinnowError:
    if entry.state == "cancelled":
        return WinnowError(f"{entry.id} was cancelled; `winnow retry {entry.id}` queues it again")
    assert entry.failure is not None
    failure = entry.failure
    text = f"{entry.id} failed: {explained(failure.detail, failure.errors)}"
    return InputError(text) if failure.input_is_wrong else WinnowError(text)


class Watch:
    """Shows events as they come. Use as a context manager."""

    def __init__(self, entry_id: str, console: Console = errors) -> None:
        self._id = entry_id
        self._console = console
        self._bar = Bar(
            TextColumn("  {task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[state]}", markup=False),
            console=console,
            transient=True,
        )
        self._task: TaskID | None = None
        self._state: State | None = None
        self._said_at = time.monotonic()

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._console.is_terminal:
            self._bar.stop()

    def event(self, event: Event) -> None:
        """Shows what is new in an event."""
        if event.state != self._state:
            self._state = event.state
            self._line(f"{self._id}: {event.state}")
        if event.note is not None and event.state != "failed":  # the failure itself follows
            self._line(f"  {event.note}")
        if event.progress is not None:
            self._progress(event.progress)

    def lost(self, error: Unreachable) -> None:
        """Says that the service is away."""
        self._line(f"{error}\n  waiting for it to come back; {self._id} is not lost")

    def _progress(self, progress: Progress) -> None:
        if self._console.is_terminal:
            self._move_bar(progress)
            return
        now = time.monotonic()
        if now - self._said_at >= PLAIN_EVERY_S:
            self._said_at = now
            self._line(f"  {progress.stage}: {amount(progress)}")

    def _move_bar(self, progress: Progress) -> None:
        if self._task is None:
            self._task = self._bar.add_task("", state="")
        self._bar.update(
            self._task,
            description=printable(progress.stage),
            completed=progress.done,
            total=progress.total,
            state=printable(amount(progress)),
        )

    def _line(self, text: str) -> None:
        self._console.print(Text(printable(text)))


def amount(progress: Progress) -> str:
    """12/48 tasks, 3 min left."""
    return f"{progress.done:,}/{progress.total:,} {progress.unit}{left(progress)}"


def duration(entry: AnyEntry) -> str:
    """How long the work of an entry took, or nothing if that is not known."""
    if entry.started is None or entry.ended is None:
        return ""
    return span((entry.ended - entry.started).total_seconds())
