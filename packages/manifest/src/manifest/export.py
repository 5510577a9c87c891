"""An export: an artifact in a directory that the user names, outside of any store. Its manifest is of kind `export`.

<parent>/.<name>.draft   what is being written, locked; the system drops the lock with the process
<parent>/<name>          the export, published by one rename, never into what is there
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from manifest.errors import ArtifactError, InputError
from manifest.record import MANIFEST, Artifact, Shard, parse

KIND = "export"


def is_published(out: Path, asked: str) -> bool:
    """Whether the export of this fingerprint is at `out`. Raises InputError if something else is in its place."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    found = "holds other files; give a directory that is new or empty"
    manifest = out / MANIFEST
    if manifest.is_file():
        try:
            record = parse(manifest.read_bytes(), str(manifest))
        except ArtifactError as error:
            found = f"holds something else ({error}); give a directory that is new or empty"
        else:
            if isinstance(record, Artifact) and record.fingerprint == asked:
                return True
            found = f"holds another {record.kind}, {record.name}; give a directory that is new, or delete that one"
    raise InputError(f"--out {out} {found}")


@contextmanager
def draft(out: Path) -> Iterator[Path]:
    """The directory in which an export is written, for one process at a time, with what a killed one left; a second one
    waits, and finds the export published or the draft as it was.
    """
    directory = out.with_name(f".{out.name}.draft")
    while True:
        directory.mkdir(parents=True, exist_ok=True)
        try:
            # The directory itself is locked: publishing takes away the hidden files in it, and then its name.
            lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:  # it was published right now
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not _is_same(lock, directory):  # whoever had the lock has published the directory
                continue
            yield directory
            # Another process has published: this draft is of no use. After our own publishing, a draft in this place is
            # that of a process that has just begun.
            if out.exists() and any(out.iterdir()) and _is_same(lock, directory):
                shutil.rmtree(directory)
            return
        finally:
            os.close(lock)


def _is_same(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def empty(directory: Path) -> None:
    """Deletes what lies in a directory."""
    for entry in directory.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def listed(directory: Path, path: str, rows: int = 0) -> Shard:
    """A file of an export as its manifest lists it. Its own bytes are its content."""
    with (directory / path).open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return Shard(path=path, rows=rows, digest=sha256, bytes=(directory / path).stat().st_size, sha256=sha256)
