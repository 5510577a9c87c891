"""An export's directory: written aside, published by one rename, its manifest last; never into what is there.

<parent>/.<name>.draft   what is being written, locked; what a killed attempt left is dropped
<parent>/<name>          the export; manifest.json is of kind `export` and names the checkpoint
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from manifest.errors import InputError


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
