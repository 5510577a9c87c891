"""An export: an artifact in a directory that the user names, outside of any store. Its manifest is of kind `export`."""

from __future__ import annotations

import hashlib
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


def listed(directory: Path, path: str, rows: int = 0) -> Shard:
    """A file of an export as its manifest lists it. Its own bytes are its content."""
    with (directory / path).open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return Shard(path=path, rows=rows, digest=sha256, bytes=(directory / path).stat().st_size, sha256=sha256)
