"""Token shards of a stream → datasets of Megatron: `<prefix>.bin` and `<prefix>.idx`.

A shard is such a dataset already and is only given another name: shared with the store where the file system can do
that, or else copied. Several shards are joined into one, for a blend of many small datasets is slow to index.

Tokens are copied as they are; an index is the lengths, the positions in bytes and the boundaries of the documents, end
to end (see manifest.indexed).
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dataproc.documents import file_sha256
from manifest.errors import CorruptArtifact
from manifest.identity import short
from manifest.indexed import DTYPE_CODES, IDX_MAGIC, Shard, open_shard
from manifest.mixture import TokenShard
from manifest.record import FileEntry
from manifest.record import Shard as File

CHUNK_BYTES = 16_000_000
FICLONE = 0x40049409
"""The ioctl by which Linux lets a file share another's blocks until one of them is written."""
CANNOT_SHARE = frozenset(
    {errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.ENOTTY, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS}
)


@dataclass(frozen=True)
class Dataset:
    """One dataset of an export: its prefix, and the shards of `directory` that it is made of."""

    prefix: str
    directory: Path
    shards: tuple[TokenShard, ...]

    @property
    def tokens(self) -> int:
        return sum(shard.tokens for shard in self.shards)

    @property
    def documents(self) -> int:
        return sum(shard.documents for shard in self.shards)

    @property
    def bytes(self) -> int:
        return sum(shard.bin.bytes for shard in self.shards)

    @property
    def chunks(self) -> int:
        """The steps in which it is written."""
        if len(self.shards) == 1:
            return 1
        return sum(max(1, -(-shard.bin.bytes // CHUNK_BYTES)) for shard in self.shards)


def write(dataset: Dataset, out: Path) -> Iterator[tuple[File, ...]]:
    """Writes a dataset into `out`; yields once per chunk, the last time its files and before that nothing.

    Raises CorruptArtifact if a shard is not what the mixture says.
    """
    shards = [_opened(dataset.directory, shard) for shard in dataset.shards]
    if len(dataset.shards) == 1:
        (entry,) = dataset.shards
        for file, suffix in ((entry.bin, ".bin"), (entry.idx, ".idx")):
            _share(dataset.directory / file.path, out / f"{dataset.prefix}{suffix}", file.sha256)
        yield tuple(
            _listed(f"{dataset.prefix}{suffix}", entry.documents, file.bytes, file.sha256)
            for file, suffix in ((entry.bin, ".bin"), (entry.idx, ".idx"))
        )
        return
    digest = hashlib.sha256()
    aside = out / f"{dataset.prefix}.bin.tmp"
    with aside.open("wb") as sink:
        for number, shard in enumerate(dataset.shards, 1):
            chunks = _verified(dataset.directory / shard.bin.path, shard.bin)
            for chunk, last in chunks:
                sink.write(chunk)
                digest.update(chunk)
                if not (last and number == len(dataset.shards)):
                    yield ()
    aside.replace(out / f"{dataset.prefix}.bin")
    index = out / f"{dataset.prefix}.idx"
    _write_index(index, shards)
    yield (
        _listed(f"{dataset.prefix}.bin", dataset.documents, dataset.bytes, digest.hexdigest()),
        _listed(index.name, dataset.documents, index.stat().st_size, file_sha256(index)),
    )


def _listed(path: str, documents: int, size_bytes: int, sha256: str) -> File:
    return File(path=path, rows=documents, digest=sha256, bytes=size_bytes, sha256=sha256)


def _opened(directory: Path, entry: TokenShard) -> Shard:
    """A shard whose index is the one that the mixture speaks of; of the tokens only their size is checked here."""
    index = directory / entry.idx.path
    if (found := file_sha256(index)) != entry.idx.sha256:
        raise _changed(index, found, entry.idx.sha256)
    shard = open_shard(index.with_suffix(""))
    if (shard.tokens.size, shard.documents) != (entry.tokens, entry.documents):
        raise CorruptArtifact(
            f"{index} lists {shard.tokens.size} tokens of {shard.documents} documents; the mixture says {entry.tokens} "
            f"of {entry.documents}. Restore it, or delete {directory} and run the same build again"
        )
    return shard


def _verified(path: Path, entry: FileEntry) -> Iterator[tuple[bytes, bool]]:
    """A file in chunks, and whether it is the last. Raises CorruptArtifact before the last if its SHA-256 is not it."""
    digest = hashlib.sha256()
    left = entry.bytes
    with path.open("rb") as file:
        while True:
            chunk = file.read(CHUNK_BYTES)
            digest.update(chunk)
            left -= len(chunk)
            if left <= 0 or not chunk:
                if digest.hexdigest() != entry.sha256:
                    raise _changed(path, digest.hexdigest(), entry.sha256)
                yield chunk, True
                return
            yield chunk, False


def _changed(path: Path, found: str, expected: str) -> CorruptArtifact:
    return CorruptArtifact(
        f"{path} has SHA-256 {short(found)}…; the mixture says {short(expected)}…. Restore it, or delete {path.parent} "
        "and run the same build again"
    )


def _share(source: Path, target: Path, sha256: str) -> None:
    """Gives a file a second name: by sharing its blocks, by a hard link, or else by a copy that is checked."""
    target.unlink(missing_ok=True)
    if _clone(source, target):
        return
    try:
        os.link(source.resolve(), target)
    except OSError as error:
        if error.errno not in CANNOT_SHARE:
            raise
        aside = target.with_name(f"{target.name}.tmp")
        shutil.copyfile(source, aside)
        if (found := file_sha256(aside)) != sha256:
            raise _changed(source, found, sha256) from error
        aside.replace(target)


def _clone(source: Path, target: Path) -> bool:
    """Whether the file system could make `target` share the blocks of `source` (Btrfs, XFS and others can)."""
    aside = target.with_name(f"{target.name}.tmp")
    with source.open("rb") as from_file, aside.open("wb") as to_file:
        try:
            fcntl.ioctl(to_file, FICLONE, from_file.fileno())
        except OSError as error:
            if error.errno not in CANNOT_SHARE:
                raise
            aside.unlink()
            return False
    aside.replace(target)
    return True


def _write_index(path: Path, shards: Sequence[Shard]) -> None:
    """The index of shards that lie end to end. Holds the index of one shard at a time."""
    dtype = shards[0].tokens.dtype
    assert all(shard.tokens.dtype == dtype for shard in shards), "a mixture has one tokenizer"
    documents = sum(shard.documents for shard in shards)
    code = next(code for code, known in DTYPE_CODES.items() if known == dtype)
    starts = accumulate((shard.tokens.nbytes for shard in shards), initial=0)
    aside = path.with_name(f"{path.name}.tmp")
    with aside.open("wb") as sink:
        sink.write(IDX_MAGIC + np.array([1], "<u8").tobytes() + bytes([code]))
        sink.write(np.array([documents, documents + 1], "<u8").tobytes())
        for shard in shards:
            sink.write(_lengths(shard).tobytes())
        for start, shard in zip(starts, shards, strict=False):
            sink.write((shard.pointers + np.int64(start)).astype("<i8").tobytes())
        for first in range(0, documents + 1, CHUNK_BYTES):
            sink.write(np.arange(first, min(first + CHUNK_BYTES, documents + 1), dtype="<i8").tobytes())
    aside.replace(path)


def _lengths(shard: Shard) -> npt.NDArray[np.int32]:
    """The tokens of each document."""
    ends = np.append(shard.pointers[1:], shard.tokens.nbytes)
    return ((ends - shard.pointers) // shard.tokens.itemsize).astype("<i4")
