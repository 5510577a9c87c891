"""An export's directory: written aside, published by one rename, its manifest last; never into what is there.

<parent>/.<name>.draft   what is being written, locked; what a killed attempt left is dropped
<parent>/<name>          the export; manifest.json is of kind `export` and names the checkpoint
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


def published(out: Path, asked: str) -> bool:
    """Whether the export of this fingerprint is at `out`. Raises InputError if anything else is."""
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
    """An empty directory beside `out`, for one process at a time. Raises InputError if another one has it."""
    directory = out.with_name(f".{out.name}.draft")
    directory.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"--out {out} is being written by another process; wait for it, or stop it") from None
        for entry in directory.iterdir():
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        yield directory
    finally:
        os.close(descriptor)


def listed(directory: Path, path: str) -> Shard:
    """A file as the export's manifest lists it. Its own bytes are its content."""
    with (directory / path).open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return Shard(path=path, rows=0, digest=sha256, bytes=(directory / path).stat().st_size, sha256=sha256)
