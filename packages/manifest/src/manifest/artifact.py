"""An artifact by its URI: open it, resolve what it refers to, check its files.

A reference's `uri` is relative to the directory of the artifact that holds it (so a store can be moved as a whole), or
absolute.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
from dataclasses import dataclass
from pathlib import Path

from manifest.errors import CorruptArtifact, NotAnArtifact, WrongArtifact
from manifest.indexed import Shard, open_shard
from manifest.mixture import Mixture, Stream
from manifest.record import MANIFEST, FileEntry, Manifest
from manifest.store import open_store
from manifest.corpus import TokenStream


@dataclass(frozen=True)
class Opened:
    """An artifact's manifest, its URI and a local directory with its files."""

    uri: str
    manifest: Manifest
    directory: Path


def open_artifact(uri: str | Path, kind: str | None = None) -> Opened:
    """Opens an artifact (or its manifest.json) and checks the size of every file.

    Raises:
        NotAnArtifact: there is none.
        WrongArtifact: it is of another kind than `kind`.
        CorruptArtifact, UnknownVersion: it cannot be used.
    """
    text = str(uri).rstrip("/").removesuffix("/" + MANIFEST)
    parent, name = posixpath.split(text if "://" in text else str(Path(text).absolute()))
    store = open_store(parent)
    manifest = store.manifest(name)
    if manifest is None:
        raise NotAnArtifact(
            f"{text} has no {MANIFEST}, so it is not a published artifact; give the path that the command printed, or run "
            "that command again if it was stopped"
        )
    if kind is not None and manifest.kind != kind:
        raise WrongArtifact(f"{text} is a {manifest.kind} ({manifest.name}); expected a {kind}")
    opened = Opened(store.where(name), manifest, store.local(name))
    _check_sizes(opened)
    return opened


def resolve(base: str, uri: str) -> str:
    """The URI that `uri` means in the manifest of the artifact at `base`."""
    if "://" in uri or uri.startswith("/"):
        return uri
    if "://" in base:
        scheme, _, rest = base.partition("://")
        return f"{scheme}://{posixpath.normpath(posixpath.join(rest, uri))}"
    return os.path.normpath(Path(base) / uri)


def relative_uri(target: str, base: str) -> str:
    """`target` as seen from the artifact at `base`; absolute if they have no store in common."""
    if "://" in target or "://" in base:
        if target.partition("://")[0] != base.partition("://")[0]:
            return target
        return posixpath.relpath(target.partition("://")[2], base.partition("://")[2])
    return os.path.relpath(target, base)


def verify(uri: str | Path) -> int:
    """Checks the SHA-256 of every file of an artifact and, for a mixture, of its streams. Returns the bytes read.

    Raises CorruptArtifact naming the first file that differs.
    """
    opened = open_artifact(uri)
    total = sum(_check_digest(opened.directory, entry) for entry in opened.manifest.files())
    if isinstance(opened.manifest, Mixture):
        for stream in opened.manifest.streams.values():
            total += verify(resolve(opened.uri, stream.uri))
    return total


def open_streams(mixture: Opened) -> dict[str, TokenStream]:
    """The token streams of an opened mixture, by name.

    Raises WrongArtifact if a stream's artifact is not the one the mixture was made with.
    """
    manifest = mixture.manifest
    assert isinstance(manifest, Mixture)
    return {
        name: TokenStream(_shards(resolve(mixture.uri, stream.uri), stream), manifest.block_tokens)
        for name, stream in manifest.streams.items()
    }


def _shards(uri: str, stream: Stream) -> list[Shard]:
    opened = open_artifact(uri)
    if opened.manifest.id != stream.id:
        raise WrongArtifact(
            f"{uri} has id {opened.manifest.id[:12]}, but the mixture was made with {stream.id[:12]}; restore it, or build "
            "the mixture again"
        )
    return [open_shard((opened.directory / shard.bin.path).with_suffix("")) for shard in stream.shards]


def _check_sizes(opened: Opened) -> None:
    for entry in opened.manifest.files():
        file = opened.directory / entry.path
        found = file.stat().st_size if file.is_file() else None
        if found != entry.bytes:
            state = "is missing" if found is None else f"has {found} bytes"
            raise CorruptArtifact(
                f"{file} {state}; the manifest says {entry.bytes} bytes. Restore it, or delete {opened.uri} and run the "
                "same build again"
            )


def _check_digest(directory: Path, entry: FileEntry) -> int:
    with (directory / entry.path).open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != entry.sha256:
        raise CorruptArtifact(
            f"{directory / entry.path} has SHA-256 {found[:12]}…; the manifest says {entry.sha256[:12]}…. Restore it, or "
            f"delete {directory} and run the same build again"
        )
    return entry.bytes
