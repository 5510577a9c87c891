"""An export of a mixture: written aside, published by one rename, like every artifact, but where the user says.

What a killed attempt at the same export finished is taken up again; what is left of another one is dropped.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from dataproc import progress
from dataproc.stage import BOOT, WORK, Draft, Made, Request, producer, references
from manifest.artifact import Opened, open_artifact
from manifest.export import KIND, draft, empty, is_published, listed
from manifest.record import Artifact, Shard, digest_of_shards, fingerprint, now
from manifest.store import LocalStore

ASKED = "asked"


def export_to(out: Path, request: Request, make: Callable[[Draft], Made]) -> Opened:
    """The export that a request names, at `out`: `make` writes it into a draft; one that is there is kept.

    Raises InputError if `out` holds anything else.
    """
    out = out.resolve()
    asked = fingerprint(
        request.stage,
        config=dict(request.config),
        inputs=references(request.inputs, ""),
        libraries={name: version(name) for name in request.libraries},
    )
    if is_published(out, asked):
        progress.say(f"{KIND}/{request.name}: re-used {out}")
        return open_artifact(out)
    began = time.monotonic()
    with draft(out) as directory:
        if not is_published(out, asked):  # another process may have published it while this one waited
            _take_up(directory, asked)
            made = make(Draft(directory))
            record = Artifact(
                kind=KIND,
                name=request.name,
                stage=request.stage,
                fingerprint=asked,
                config=dict(request.config),
                inputs=references(request.inputs, str(out)),
                shards=made.shards,
                digest=digest_of_shards(made.shards),
                summary=made.summary,
                producer=producer(request.libraries, seconds=round(time.monotonic() - began, 3)),
                created=now(),
            )
            _sync_directories(directory)
            LocalStore(out.parent).publish(out.name, directory, record)
            _say(request, record, time.monotonic() - began)
    return open_artifact(out)


def _say(request: Request, record: Artifact, seconds: float) -> None:
    size = sum(shard.bytes for shard in record.shards)
    progress.say(
        f"{KIND}/{request.name}: {len(record.shards):,} files, {size / 1e6:,.1f} MB in {seconds:.1f} s "
        f"({size / 1e6 / max(seconds, 1e-3):,.0f} MB/s)"
    )


def _take_up(directory: Path, asked: str) -> None:
    """Leaves in the draft what was written for the same export since the machine was started.

    What is older may never have reached the disk, whatever the notes say.
    """
    mark = directory / WORK / ASKED
    wanted = asked + (BOOT.read_text() if BOOT.exists() else "")
    if mark.is_file() and mark.read_text() == wanted:
        return
    empty(directory)
    mark.parent.mkdir()
    mark.write_text(wanted)


def _sync_directories(directory: Path) -> None:
    """Waits until the entries of the directories below are on the disk; publishing does so for files."""
    for folder, _, _ in os.walk(directory):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_text(directory: Path, path: str, text: str) -> Shard:
    """Writes a file of an export."""
    (directory / path).write_text(text, encoding="utf-8")
    return listed(directory, path)
