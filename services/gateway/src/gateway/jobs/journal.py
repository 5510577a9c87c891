"""The files between the gateway and a job: its tasks, its journal, its log, and the marks that cancel.

The journal is appended a line at a time and read from where the last reading stopped; a line that is not whole yet
waits for its end. Only the job writes it, and it writes the last line of an entry to the disk before it goes on.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from gateway.ledger.states import Kind, State
from gateway.messages import Failure, Result
from manifest.errors import CorruptArtifact
from manifest.progress import Progress
from manifest.record import Model
from manifest.store import write_atomic

JOB, JOURNAL, LOG, LOCKS = "job.json", "journal.jsonl", "log", "locks"
MOST_NOTE_CHARS = 4000


class Task(Model):
    """The work of one entry. `resolved` is what gateway.requests made of the request."""

    entry: str
    kind: Kind
    request: dict[str, Any]
    resolved: dict[str, Any]
    workers: int


class Job(Model):
    """job.json. `store` is the store's URI, `locks` a directory with a lock per entry; `alone` as of its cluster."""

    id: str
    store: str
    locks: str
    alone: bool = False
    tasks: tuple[Task, ...]


class Line(Model):
    """A line of the journal: what there is to say of an entry, at a time (seconds since 1970, the job's clock)."""

    entry: str
    at: float
    state: State | None = None
    progress: Progress | None = None
    note: str | None = None
    identity: str | None = None
    result: Result | None = None
    failure: Failure | None = None


class Journal:
    """The writing side. Lines may come from several threads."""

    def __init__(self, directory: Path) -> None:
        self._file = (directory / JOURNAL).open("ab", buffering=0)
        self._lock = threading.Lock()

    def write(self, line: Line, *, durable: bool = False) -> None:
        """Appends a line; durable: and waits until it is on the disk. Raises OSError, having written nothing."""
        data = json.dumps(printable(line.model_dump(mode="json", exclude_none=True))).encode() + b"\n"
        with self._lock:
            end = os.fstat(self._file.fileno()).st_size
            try:
                while data:  # a disk that fills up takes a part
                    data = data[self._file.write(data) :]
            except OSError:
                os.ftruncate(self._file.fileno(), end)
                raise
            if durable:
                os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


def printable(value: Any) -> Any:
    """A JSON value in which every string can be kept anywhere: no NUL, no lone surrogate."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode().replace("\0", "\ufffd")
    if isinstance(value, dict):
        return {printable(key): printable(item) for key, item in value.items()}
    return [printable(item) for item in value] if isinstance(value, list) else value


def read(directory: Path, offset: int) -> tuple[list[Line], int]:
    """The whole lines of a journal from a byte on, and the byte after them. No file yet: no lines.

    Raises CorruptArtifact for a line that no job writes.
    """
    file = directory / JOURNAL
    if not file.is_file():
        return [], offset
    with file.open("rb") as opened:
        opened.seek(offset)
        whole, end, _ = opened.read().rpartition(b"\n")
    try:
        return [Line.model_validate_json(line) for line in whole.splitlines()], offset + len(whole) + len(end)
    except ValidationError as error:
        raise CorruptArtifact(f"{file} has a line that no job writes, after byte {offset}: {error}") from error


def write_job(jobs: Path, job: Job) -> Path:
    """Makes the directory of a job. Doing it again changes nothing."""
    directory = jobs / job.id
    directory.mkdir(parents=True, exist_ok=True)
    (jobs / LOCKS).mkdir(exist_ok=True)
    write_atomic(directory / JOB, job.model_dump_json(indent=2).encode())
    return directory


def read_job(directory: Path) -> Job:
    return Job.model_validate_json((directory / JOB).read_bytes())


def cancel_mark(directory: Path, entry: str) -> Path:
    """The file that asks for an entry's work to stop."""
    return directory / f"cancel-{entry}"


def closed_mark(directory: Path) -> Path:
    """The file that says that nobody listens to a job any more: whatever is left of it is to end."""
    return directory / "closed"


def read_log(directory: Path, offset: int, limit: int) -> tuple[str, int]:
    """A part of a job's log, at most `limit` bytes from `offset` on, and where the next part begins."""
    file = directory / LOG
    if not file.is_file():
        return "", offset
    with file.open("rb") as opened:
        opened.seek(offset)
        data = opened.read(limit)
    if len(data) == limit:  # not through the middle of a character
        data = data[: limit - _tail(data)]
    return data.decode("utf-8", "replace"), offset + len(data)


def last_lines(directory: Path, count: int) -> str:
    """The end of a job's log."""
    file = directory / LOG
    if not file.is_file():
        return ""
    size = file.stat().st_size
    with file.open("rb") as opened:
        opened.seek(max(0, size - 20_000))
        return str(printable("\n".join(opened.read().decode("utf-8", "replace").splitlines()[-count:])))


def _tail(data: bytes) -> int:
    """How many bytes at the end begin a character that is not whole."""
    for back in range(1, min(4, len(data)) + 1):
        byte = data[-back]
        if byte & 0xC0 == 0xC0:
            return back if back < (2 if byte < 0xE0 else 3 if byte < 0xF0 else 4) else 0
        if byte & 0x80 == 0:
            return 0
    return 0


def notes(text: str) -> Iterator[str]:
    """What a person was told, as notes: no empty lines, none without end."""
    for line in text.splitlines():
        if line.strip():
            yield line.rstrip()[:MOST_NOTE_CHARS]
