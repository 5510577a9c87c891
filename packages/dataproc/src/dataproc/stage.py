"""A stage: a function from artifacts to one artifact, done once per request.

    Request ──fingerprint──► is it published?  yes: re-used      no: built in a draft, then published in one step

What a killed attempt finished (its shards and the notes of its tasks) stays in the draft and is taken up again.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from dataproc import progress
from dataproc.workers import Workers
from manifest.artifact import Opened, open_artifact, relative_uri
from manifest.record import (
    Artifact,
    Manifest,
    Producer,
    Reference,
    Shard,
    digest_of_shards,
    fingerprint,
    now,
)
from manifest.store import Store

WORK, DROPPED = ".work", ".dropped"
BOOT = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class Planned:
    """An artifact that a dry run would build."""

    kind: str
    name: str


@dataclass(frozen=True)
class Raw:
    """A raw file as an input."""

    path: str
    sha256: str
    uri: str


Input = Opened | Planned | Raw


@dataclass(frozen=True)
class Request:
    """What is asked of a stage. `stage` is its name and version; `libraries` are those that shape its output.

    known_as: what messages call it besides its name, which artifacts of several recipes may share.
    """

    kind: str
    name: str
    stage: str
    config: Mapping[str, Any]
    inputs: Mapping[str, Input]
    libraries: tuple[str, ...] = ()
    known_as: str = ""

    @property
    def title(self) -> str:
        return f"{self.kind}/{self.name}" + (f" ({self.known_as})" if self.known_as else "")


@dataclass(frozen=True)
class Made:
    """What a stage made in its draft."""

    shards: tuple[Shard, ...]
    summary: dict[str, Any]


@dataclass(frozen=True)
class Draft:
    """Where a stage writes: shards at the top, notes of finished tasks and scratch files in one directory beside them,
    so that they are dropped together.
    """

    path: Path

    @property
    def notes(self) -> Path:
        return self.path / WORK / "notes"

    @property
    def scratch(self) -> Path:
        scratch = self.path / WORK / "scratch"
        scratch.mkdir(parents=True, exist_ok=True)
        return scratch

    @property
    def left(self) -> Path:
        """A directory beside the draft for what a later stage may use, and takes away (`left_by`)."""
        return self.path.with_name(f"{self.path.name}.left")

    def left_by(self, item: Opened) -> Path:
        """Where the stage that made an artifact of this store has left what this one may use."""
        return self.path.with_name(f"{item.manifest.kind}--{item.directory.name}.left")


@dataclass
class Build:
    """A build in progress: where it publishes, who works, and what it did. `dry`: only say what would be done."""

    store: Store
    workers: Workers
    dry: bool = False

    def make(self, request: Request, make: Callable[[Draft], Made]) -> Opened | Planned:
        """The artifact that a request names: the published one, or `make` is called and its draft published."""
        if any(isinstance(item, Planned) for item in request.inputs.values()):
            return self._plan(request)
        asked = fingerprint(
            request.stage,
            config=dict(request.config),
            inputs=references(request.inputs, ""),
            libraries={name: version(name) for name in request.libraries},
        )
        path = f"{request.kind}/{request.name}-{asked[:12]}"
        if self.store.manifest(path) is not None:
            progress.say(f"{request.title}: re-used {path}")
            return open_artifact(self.store.where(path))
        if self.dry:
            return self._plan(request)
        return self._build(request, make, asked, path)

    def plan(self, kind: str, name: str) -> Planned:
        """What a dry run says of an artifact that is not there."""
        progress.say(f"{kind}/{name}: would be built")
        return Planned(kind, name)

    def _plan(self, request: Request) -> Planned:
        progress.say(f"{request.title}: would be built")
        return Planned(request.kind, request.name)

    def publish(self, path: str, record: Manifest) -> Opened | Planned:
        """Publishes a manifest that has no shards of its own."""
        if self.store.manifest(path) is None:
            if self.dry:
                return self.plan(record.kind, record.name)
            with self.store.draft(path) as directory:
                self.store.publish(path, directory, record)
            progress.say(f"{record.kind}/{record.name} → {path}")
        else:
            progress.say(f"{record.kind}/{record.name}: re-used {path}")
        return open_artifact(self.store.where(path))

    def _build(self, request: Request, make: Callable[[Draft], Made], asked: str, path: str) -> Opened:
        began = time.monotonic()
        with self.store.draft(path) as directory:
            if self.store.manifest(path) is None:  # another process may have published it while this one waited
                made = make(start(directory))
                _clean(directory, {shard.path for shard in made.shards})
                seconds = round(time.monotonic() - began, 3)
                record = Artifact(
                    kind=request.kind,
                    name=request.name,
                    stage=request.stage,
                    fingerprint=asked,
                    config=dict(request.config),
                    inputs=references(request.inputs, self.store.where(path)),
                    shards=made.shards,
                    digest=digest_of_shards(made.shards),
                    summary=made.summary,
                    producer=producer(request.libraries, seconds=seconds, workers=self.workers.count),
                    created=now(),
                )
                self.store.publish(path, directory, record)
                progress.say(f"{request.title}: {_counts(made.summary)} in {seconds:.1f} s → {path}")
        return open_artifact(self.store.where(path))


def references(inputs: Mapping[str, Input], base: str) -> dict[str, Reference]:
    """Inputs as a manifest records them; uris relative to the artifact at `base`, raw files' as they are."""
    found: dict[str, Reference] = {}
    for key, item in inputs.items():
        if isinstance(item, Raw):
            found[key] = Reference(kind="raw", name=item.path, id=item.sha256, uri=item.uri)
        else:
            assert isinstance(item, Opened)
            uri = relative_uri(item.uri, base) if base else ""
            found[key] = Reference(kind=item.manifest.kind, name=item.manifest.name, id=item.manifest.id, uri=uri)
    return found


def producer(libraries: tuple[str, ...], **measured: float) -> Producer:
    """Who makes an artifact, with what it cost."""
    return Producer(
        program="dataproc",
        version=version("winnow-dataproc"),
        libraries={"python": sys.version.split()[0], **{name: version(name) for name in libraries}},
        measured=measured,
    )


def summary_of(opened: Opened | Planned) -> dict[str, Any]:
    """The summary of a stage's artifact."""
    manifest: Manifest | None = opened.manifest if isinstance(opened, Opened) else None
    assert isinstance(manifest, Artifact)
    return manifest.summary


def shard_files(opened: Opened, stem: str = "") -> list[Path]:
    """The shards of an artifact whose names begin with `stem`, in order of name."""
    assert isinstance(opened.manifest, Artifact)
    return [
        opened.directory / s.path
        for s in sorted(opened.manifest.shards, key=lambda s: s.path)
        if s.path.startswith(stem)
    ]


def start(directory: Path) -> Draft:
    """The draft, with what a killed attempt left in it.

    What is left from before the machine was started is dropped: some of it may never have reached the disk.
    """
    boot = BOOT.read_text() if BOOT.exists() else ""
    mark = directory / WORK / "boot"
    if mark.is_file() and mark.read_text() != boot:
        _drop_work(directory)
    mark.parent.mkdir(exist_ok=True)
    mark.write_text(boot)
    return Draft(directory)


def _drop_work(directory: Path) -> None:
    """All notes go in one step: a note that outlives the file it speaks of would mislead the next attempt."""
    if (directory / DROPPED).exists():
        shutil.rmtree(directory / DROPPED)
    (directory / WORK).rename(directory / DROPPED)


def _clean(directory: Path, listed: set[str]) -> None:
    """Leaves only the shards of a draft."""
    _drop_work(directory)
    for entry in directory.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        elif entry.name not in listed:
            entry.unlink()


def _counts(summary: Mapping[str, Any]) -> str:
    """The first counts of a summary, in words."""
    numbers = [f"{value:,} {key.replace('_', ' ')}" for key, value in summary.items() if isinstance(value, int)]
    return ", ".join(numbers[:3]) or "done"
