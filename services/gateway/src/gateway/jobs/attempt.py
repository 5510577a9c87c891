"""One attempt at a task: what it says to the journal, and how it hears that it should stop."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from gateway.jobs.journal import Journal, Line, Task, cancel_mark, closed_mark, notes
from gateway.ledger.states import State
from gateway.messages import Failure, Result
from manifest.progress import Progress

PLANNING = "hashing raw files"
PUBLISHING = "mixtures/"
POLL_S = 0.5
STOPPED = 143  # what a shell gives to a process that SIGTERM ends


class Cancelled(KeyboardInterrupt):
    """The user asked this task to stop. As for ^C, all that is finished stays."""


class Attempt:
    """What a task says of itself. Listens to manifest.progress."""

    def __init__(self, task: Task, journal: Journal) -> None:
        self._entry = task.entry
        self._journal = journal
        self._state: State = "queued"

    def say(
        self,
        *,
        state: State | None = None,
        progress: Progress | None = None,
        note: str | None = None,
        identity: str | None = None,
        result: Result | None = None,
        failure: Failure | None = None,
        durable: bool = False,
    ) -> None:
        """A line of the journal; durable: it is on the disk when this returns."""
        self._state = state or self._state
        line = Line(
            entry=self._entry,
            at=time.time(),
            state=state,
            progress=progress,
            note=note,
            identity=identity,
            result=result,
            failure=failure,
        )
        self._journal.write(line, durable=durable)

    def heard(self, what: Progress | str) -> None:
        """What the work told its user."""
        if isinstance(what, str):
            for line in notes(what):
                self.say(note=line)
        elif what.stage == PLANNING:
            self.say(progress=what)
        else:
            self.say(state=self._next(what.stage), progress=what)

    def _next(self, stage: str) -> State | None:
        wanted: State = "publishing" if stage.startswith(PUBLISHING) else "running"
        return None if self._state in (wanted, "publishing") else wanted


@contextmanager
def watch_for_cancel(directory: Path, entry: str) -> Iterator[None]:
    """Within it, the mark that cancels an entry raises Cancelled on the main thread, also if it is there already.

    The mark that closes the job ends the process, and so does any other interruption: none of them is the user's wish,
    and there will be another attempt.
    """
    mark, closed, over = cancel_mark(directory, entry), closed_mark(directory), threading.Event()
    if closed.exists():
        sys.exit(STOPPED)
    if mark.exists():
        raise Cancelled

    def watch() -> None:
        while not over.wait(POLL_S):
            if mark.exists() or closed.exists():
                os.kill(os.getpid(), signal.SIGINT)
                return

    def interrupted(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, interrupted)
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    except KeyboardInterrupt as interrupt:  # the trainer raises its own, after it has saved
        if mark.exists() and not closed.exists():
            raise Cancelled from interrupt
        sys.exit(STOPPED)
    finally:
        over.set()
        watcher.join()
        signal.signal(signal.SIGINT, before)
