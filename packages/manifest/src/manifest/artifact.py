"""An artifact by its URI: open it, resolve what it refers to, check its files.

A reference's `uri` is relative to the directory of the artifact that holds it (so a store can be moved as a
whole), or absolute.
"""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from manifest.corpus import TokenStream
from manifest.errors import CorruptArtifact, InputError, NotAnArtifact, WrongArtifact
from manifest.identity import short
from manifest.mixture import Mixture, Stream
from manifest.record import MANIFEST, FileEntry, Manifest
from manifest.shards import ShardsOpenedLater, open_shards
from manifest.store import Store, open_store


@dataclass(frozen=True)
class Opened:
    """An artifact's manifest, its URI and a local directory with its files."""

    uri: str
    manifest: Manifest
    directory: Path


def locate(uri: str | Path) -> tuple[Store, str]:
    """The store that holds the file or directory at `uri`, and its path there."""
    text = str(uri).removeprefix("file://")
    remote = "://" in text
    parent, name = posixpath.split(text.rstrip("/") if remote else os.path.abspath(text))
    if not name or (remote and parent.endswith(":")):
        raise InputError(f"{uri} is a whole store; give the path of something in it")
    return open_store(parent), name


def open_artifact(uri: str | Path, kind: str | None = None) -> Opened:
    """Opens an artifact (or its manifest.json) and checks the size of every file.

    Raises:
        NotAnArtifact: there is none.
        WrongArtifact: it is of another kind than `kind`.
        CorruptArtifact, UnknownVersion: it cannot be used.
    """
    store, name, manifest = _find(uri, kind)
    opened = Opened(store.where(name), manifest, store.local(name))
    _check_sizes(opened.uri, opened.directory, manifest.files())
    return opened


def read_manifest(uri: str | Path, kind: str | None = None) -> tuple[str, Manifest]:
    """The URI and the manifest of an artifact, whatever its files. Raises as `open_artifact` does."""
    store, name, manifest = _find(uri, kind)
    return store.where(name), manifest


def _find(uri: str | Path, kind: str | None) -> tuple[Store, str, Manifest]:
    store, name = locate(uri)
    if name == MANIFEST:
        store, name = locate(store.uri)
    manifest = store.manifest(name)
    if manifest is None:
        raise _not_published(store.where(name))
    if kind is not None and manifest.kind != kind:
        raise WrongArtifact(
            f"{store.where(name)} is a {manifest.kind} ({manifest.name}); expected a {kind}; give its path"
        )
    return store, name, manifest


def _not_published(where: str) -> NotAnArtifact:
    return NotAnArtifact(
        f"{where} has no {MANIFEST}, so it is not a published artifact; give the path that the command printed, or "
        "run that command again if it was stopped"
    )


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
    if "://" not in target and "://" not in base:
        return os.path.relpath(target, base)
    if "://" not in target:
        return os.path.abspath(target)
    if _bucket(target) != _bucket(base):
        return target
    return posixpath.relpath(target.partition("://")[2], base.partition("://")[2])


def _bucket(uri: str) -> tuple[str, str]:
    scheme, _, rest = uri.partition("://")
    return scheme, rest.partition("/")[0]


def verify(uri: str | Path) -> int:
    """Checks the SHA-256 of every file of an artifact and of a mixture's streams. Returns the bytes read.

    An object store's files are read from the store, not from the cache. Raises CorruptArtifact for the first
    file that differs, WrongArtifact for a stream that the mixture was not made with.
    """
    store, name, manifest = _find(uri, None)
    total = sum(_check_digest(store, f"{name}/{file.path}", file.sha256, file.bytes) for file in manifest.files())
    if isinstance(manifest, Mixture):
        for stream in manifest.streams.values():
            where = resolve(store.where(name), stream.uri)
            _require_same(where, read_manifest(where)[1].id, stream)
            total += verify(where)
    return total


def open_streams(mixture: Opened) -> dict[str, TokenStream]:
    """The token streams of an opened mixture, by name.

    Raises WrongArtifact if a stream's artifact is not the one the mixture was made with.
    """
    manifest = mixture.manifest
    assert isinstance(manifest, Mixture)
    return {
        name: _open_stream(resolve(mixture.uri, stream.uri), stream, manifest.block_tokens)
        for name, stream in manifest.streams.items()
    }


def _open_stream(uri: str, stream: Stream, block_tokens: int) -> TokenStream:
    store, name = locate(uri)
    found = store.said_id(name)  # what it holds is listed by the mixture, whose id is compared with its content
    if found is None:
        raise _not_published(store.where(name))
    _require_same(uri, found, stream)
    directory = store.local(name)
    _check_sizes(store.where(name), directory, (file for shard in stream.shards for file in shard.files()))
    shards = open_shards(directory, stream.shards)
    listed = [(shard.tokens, shard.documents) for shard in stream.shards]
    tokens = TokenStream(shards, block_tokens, listed if isinstance(shards, ShardsOpenedLater) else None)
    if (tokens.tokens, tokens.blocks) != (stream.tokens, stream.blocks):
        raise CorruptArtifact(
            f"{uri} has {tokens.tokens} tokens in {tokens.blocks} blocks of {block_tokens}; the mixture says "
            f"{stream.tokens} in {stream.blocks}. Build the mixture again"
        )
    return tokens


def _require_same(uri: str, found: str, stream: Stream) -> None:
    if found != stream.id:
        raise WrongArtifact(
            f"{uri} has id {short(found)}, but the mixture was made with {short(stream.id)}; restore it, "
            "or build the mixture again"
        )


def _check_sizes(uri: str, directory: Path, files: Iterable[FileEntry]) -> None:
    place = str(directory)
    for entry in files:
        file = f"{place}/{entry.path}"  # a stream may have 50,000 of them, and `Path` takes longer than the system
        found = _size_of(file)
        if found != entry.bytes:
            state = "is missing" if found is None else f"has {found} bytes"
            raise CorruptArtifact(
                f"{file} {state}; the manifest says {entry.bytes} bytes. Restore it, or delete {uri} "
                "and run the same build again"
            )


def _size_of(file: str) -> int | None:
    try:
        found = os.stat(file)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_size if stat.S_ISREG(found.st_mode) else None


def _check_digest(store: Store, path: str, expected: str, size_bytes: int) -> int:
    """The bytes of a file whose SHA-256 is the expected one."""
    try:
        found = f"has SHA-256 {short(digest)}…" if (digest := store.sha256(path)) != expected else ""
    except FileNotFoundError:
        found = "is missing"
    if found:
        raise CorruptArtifact(
            f"{store.where(path)} {found}; the manifest says {short(expected)}…. Restore it, or delete the "
            "artifact and run the same build again"
        )
    return size_bytes
