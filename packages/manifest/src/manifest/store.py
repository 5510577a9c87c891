"""Where artifacts live: a local directory or an object store, and the one way to publish.

    draft(path)   a local directory to write in; what a killed attempt finished is still there
    publish(...)  the whole draft appears at once, its manifest last; before that nothing exists

Local: the draft is renamed. S3: shards are uploaded, then the manifest is created *if absent*, which is the
commit lock: of two writers one wins, and the other takes the winner's artifact if it is the same.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path

from manifest.errors import CorruptArtifact, InputError
from manifest.identity import short
from manifest.record import MANIFEST, Manifest, parse, said_id

DRAFTS = ".drafts"


class Store(ABC):
    """A tree of artifacts under one URI. Paths are relative, with forward slashes."""

    uri: str

    def where(self, path: str) -> str:
        """The URI of a path."""
        return f"{self.uri}/{path}"

    @abstractmethod
    def manifest(self, path: str) -> Manifest | None:
        """The manifest of the artifact at `path`; None if there is none. Raises ArtifactError."""

    def said_id(self, path: str) -> str | None:
        """The id that the manifest at `path` says, which need not be compared with its content; None if there is none.

        Raises ArtifactError as `manifest` does, where it has to read all of it.
        """
        manifest = self.manifest(path)
        return None if manifest is None else manifest.id

    @abstractmethod
    def list(self, path: str) -> list[str]:
        """The names of the artifacts right below `path`, sorted."""

    @abstractmethod
    def folders(self, path: str) -> Sequence[str]:
        """The names of the directories right below `path`, artifacts or not, sorted."""

    @abstractmethod
    def exists(self, path: str) -> bool:
        """Whether there is a file or a directory at `path`."""

    @abstractmethod
    def sha256(self, path: str) -> str:
        """The SHA-256 of a file, read from where it is stored. Raises FileNotFoundError."""

    @abstractmethod
    def local(self, path: str) -> Path:
        """A local directory with the artifact's files (downloaded once from an object store)."""

    @abstractmethod
    def _commit(self, path: str, draft: Path, record: Manifest) -> None:
        """Makes the draft the artifact, atomically. Raises FileExistsError if another writer was first."""

    @abstractmethod
    def _drafts(self) -> Path:
        """The local directory of all drafts."""

    @contextlib.contextmanager
    def draft(self, path: str) -> Iterator[Path]:
        """The draft directory of an artifact, for one process at a time; a second one waits."""
        directory = self._drafts() / path.replace("/", "--")
        directory.mkdir(parents=True, exist_ok=True)
        with locked(directory.with_name(directory.name + ".lock")):
            directory.mkdir(exist_ok=True)  # the process we waited for may have published it
            (directory / MANIFEST).unlink(missing_ok=True)  # a publish was killed right before its rename
            yield directory

    def publish(self, path: str, draft: Path, record: Manifest) -> Manifest:
        """Publishes a draft and returns its manifest with its id; an equal artifact already there is kept.

        Entries of the draft that begin with a dot (notes of the work) are dropped. Raises CorruptArtifact if
        another artifact with other content is there: the same request must give the same content.
        """
        record = record.identified()
        for file in record.files():
            assert (draft / file.path).stat().st_size == file.bytes, f"{file.path} of the draft is not as listed"
        for entry in draft.iterdir():
            if entry.name.startswith("."):
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        try:
            self._commit(path, draft, record)
        except FileExistsError:
            present = self.manifest(path)
            if present is None:
                raise CorruptArtifact(
                    f"{self.where(path)} holds files but no {MANIFEST}, so it is no artifact, and none can "
                    "be published there; move it away, and run the same command again"
                ) from None
            if present.id != record.id:
                raise CorruptArtifact(
                    f"{self.where(path)} exists with content {short(present.id)}, and building it again gave "
                    f"{short(record.id)}; delete one of the two, and report it: a stage is not deterministic"
                ) from None
            shutil.rmtree(draft, ignore_errors=True)
            return present
        return record


class LocalStore(Store):
    """A directory. Publishing is one rename."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()  # so that references between artifacts hold on every way to them
        self.uri = str(self.root)

    def manifest(self, path: str) -> Manifest | None:
        file = self.root / path / MANIFEST
        return parse(file.read_bytes(), str(file)) if file.is_file() else None

    def said_id(self, path: str) -> str | None:
        file = self.root / path / MANIFEST
        if not file.is_file():
            return None
        with file.open("rb") as opened:
            return said_id(opened.read(4096)) or super().said_id(path)

    def list(self, path: str) -> list[str]:
        directory = self.root / path
        if not directory.is_dir():
            return []
        return sorted(entry.name for entry in directory.iterdir() if (entry / MANIFEST).is_file())

    def folders(self, path: str) -> Sequence[str]:
        directory = self.root / path
        if not directory.is_dir():
            return []
        return sorted(entry.name for entry in directory.iterdir() if entry.is_dir())

    def exists(self, path: str) -> bool:
        return (self.root / path).exists()

    def sha256(self, path: str) -> str:
        with (self.root / path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def local(self, path: str) -> Path:
        return self.root / path

    def _drafts(self) -> Path:
        return self.root / DRAFTS

    def _commit(self, path: str, draft: Path, record: Manifest) -> None:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        for file in record.files():
            _sync(draft / file.path)
        write_atomic(draft / MANIFEST, record.to_json())
        try:
            draft.rename(target)
        except OSError as error:
            (draft / MANIFEST).unlink()
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):  # something is in the way
                raise FileExistsError(target) from error
            raise
        _sync(target.parent)


def write_atomic(path: Path, data: bytes) -> None:
    """Writes a file so that it is there whole or not at all, also after a crash of the machine."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with aside.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)
    _sync(path.parent)


def _sync(path: Path) -> None:
    """Waits until a file, or the entries of a directory, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """An exclusive lock that the system releases when the process ends, however it ends."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def open_store(uri: str | Path) -> Store:
    """The store at a local path, `file://…` or `s3://bucket/prefix`. Raises InputError for another scheme."""
    if str(uri) == "":
        raise InputError("the store's path is empty; give a directory or s3://bucket/prefix")
    text = str(uri).rstrip("/") or "/"
    scheme, separator, rest = text.partition("://")
    if not separator:
        return LocalStore(Path(text))
    if scheme == "file":
        return LocalStore(Path(rest))
    if scheme == "s3":
        from manifest.objectstore import S3Store

        return S3Store(text)
    raise InputError(f"{text}: the scheme {scheme!r} is unknown; give a local path or s3://bucket/prefix")
