"""Token shards of a stream → datasets of Megatron: `<prefix>.bin` and `<prefix>.idx`.

A shard is such a dataset already and is only given another name: shared with the store where the file system can do
that, or else copied. Several shards are joined into one, for a blend of many small datasets is slow to index.

Tokens are copied as they are; an index is the lengths, the positions in bytes and the boundaries of the documents, end
to end (see manifest.indexed). Labels are a second dataset of a stream with masks, as GPT-NeoX reads them: the same
documents in int32, with NOT_LEARNED for each token that is not learned, not shifted.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dataproc.documents import file_sha256
from manifest.errors import CorruptArtifact
from manifest.export import listed
from manifest.identity import short
from manifest.indexed import DTYPE_CODES, IDX_MAGIC, Shard, open_shard
from manifest.mixture import TokenShard
from manifest.record import FileEntry
from manifest.record import Shard as File

SUFFIX, LABEL_SUFFIX = "_text_document", "_label_document"
CHUNK_BYTES = 16_000_000
LABEL_DTYPE = DTYPE_CODES[4]
NOT_LEARNED = -100
FICLONE = 0x40049409
"""The ioctl by which Linux lets a file share another's blocks until one of them is written."""
CANNOT_SHARE = frozenset(
    {errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.ENOTTY, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS}
)


@dataclass(frozen=True)
class Dataset:
    """One dataset of an export: its prefix, and the shards of `directory` that it is made of. labels: of its tokens."""

    prefix: str
    directory: Path
    shards: tuple[TokenShard, ...]
    labels: bool = False

    @property
    def tokens(self) -> int:
        return sum(shard.tokens for shard in self.shards)

    @property
    def documents(self) -> int:
        return sum(shard.documents for shard in self.shards)

    @property
    def bytes(self) -> int:
        return self.tokens * LABEL_DTYPE.itemsize if self.labels else sum(shard.bin.bytes for shard in self.shards)

    @property
    def shared(self) -> bool:
        """Whether it is a shard as it is, and so takes no space."""
        return len(self.shards) == 1 and not self.labels

    @property
    def chunks(self) -> int:
        """The steps in which it is written."""
        return 1 if self.shared else sum(_chunks(shard.bin.bytes) for shard in self.shards)

    def labelled(self) -> Dataset | None:
        """The dataset of its labels; None if all of its tokens are learned."""
        if any(shard.mask is None for shard in self.shards):
            return None
        return replace(self, prefix=self.prefix.removesuffix(SUFFIX) + LABEL_SUFFIX, labels=True)


def write(dataset: Dataset, out: Path) -> Iterator[tuple[File, ...]]:
    """Writes a dataset into `out`; yields once per chunk, the last time its files and before that nothing.

    Raises CorruptArtifact if a shard is not what the mixture says.
    """
    shards = [_opened(dataset.directory, shard) for shard in dataset.shards]
    if not dataset.shared:
        yield from _join(dataset, shards, out)
        return
    (entry,) = dataset.shards
    files = []
    for file, suffix in ((entry.bin, ".bin"), (entry.idx, ".idx")):
        name = dataset.prefix + suffix
        _share(dataset.directory, file, out / name)
        files.append(File(path=name, rows=entry.documents, digest=file.sha256, bytes=file.bytes, sha256=file.sha256))
    yield tuple(files)


def _join(dataset: Dataset, shards: Sequence[Shard], out: Path) -> Iterator[tuple[File, ...]]:
    tokens, index = (f"{dataset.prefix}{suffix}" for suffix in (".bin", ".idx"))
    digest = hashlib.sha256()
    aside = out / f"{tokens}.tmp"
    content = _labels if dataset.labels else _tokens
    chunks = (chunk for shard in dataset.shards for chunk in content(dataset.directory, shard))
    with aside.open("wb") as sink:
        for done, chunk in enumerate(chunks, 1):
            sink.write(chunk)
            digest.update(chunk)
            if done < dataset.chunks:
                yield ()
    aside.replace(out / tokens)
    _write_index(out / index, shards, LABEL_DTYPE if dataset.labels else shards[0].tokens.dtype)
    sha256 = digest.hexdigest()
    joined = File(path=tokens, rows=dataset.documents, digest=sha256, bytes=dataset.bytes, sha256=sha256)
    yield joined, listed(out, index, dataset.documents)


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


def _tokens(directory: Path, shard: TokenShard) -> Iterator[bytes]:
    """The tokens of a shard in chunks. Raises as `_verified`."""
    return _verified(directory / shard.bin.path, shard.bin)


def _labels(directory: Path, shard: TokenShard) -> Iterator[bytes]:
    """The labels of a shard, for each chunk of its tokens. Raises as `_verified`."""
    assert shard.mask is not None, "a stream has masks or has not"
    dtype = next(d for d in DTYPE_CODES.values() if shard.tokens * d.itemsize == shard.bin.bytes)
    masks = _verified(directory / shard.mask.path, shard.mask, share=dtype.itemsize)
    for tokens, mask in zip(_tokens(directory, shard), masks, strict=True):
        learned = np.frombuffer(mask, np.uint8) != 0
        yield np.where(learned, np.frombuffer(tokens, dtype).astype(LABEL_DTYPE), NOT_LEARNED).tobytes()


def _verified(path: Path, entry: FileEntry, *, share: int = 1) -> Iterator[bytes]:
    """A file in chunks, of CHUNK_BYTES / share. Raises CorruptArtifact before the last if its SHA-256 is another."""
    digest = hashlib.sha256()
    last = _chunks(entry.bytes * share) - 1
    with path.open("rb") as file:
        for place in range(last + 1):
            chunk = file.read(CHUNK_BYTES // share)
            digest.update(chunk)
            if place == last and digest.hexdigest() != entry.sha256:
                raise _changed(path, digest.hexdigest(), entry.sha256)
            yield chunk


def _chunks(size_bytes: int) -> int:
    return max(1, -(-size_bytes // CHUNK_BYTES))


def _changed(path: Path, found: str, expected: str) -> CorruptArtifact:
    return CorruptArtifact(
        f"{path} has SHA-256 {short(found)}…; the mixture says {short(expected)}…. Restore it, or delete {path.parent} "
        "and run the same build again"
    )


def _share(directory: Path, entry: FileEntry, target: Path) -> None:
    """Gives a file a second name: by sharing its blocks, by a hard link, or else by a copy that is checked."""
    source = directory / entry.path
    target.unlink(missing_ok=True)
    if _clone(source, target):
        return
    try:
        os.link(source.resolve(), target)
    except OSError as error:
        if error.errno not in CANNOT_SHARE:
            raise
        aside = target.with_name(f"{target.name}.tmp")
        with aside.open("wb") as sink:
            sink.writelines(_verified(source, entry))
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


def _write_index(path: Path, shards: Sequence[Shard], dtype: np.dtype[np.generic]) -> None:
    """The index of shards that lie end to end, of tokens or of labels. Holds the index of one shard at a time."""
    assert len({shard.tokens.dtype for shard in shards}) == 1, "a mixture has one tokenizer"
    documents = sum(shard.documents for shard in shards)
    code = next(code for code, known in DTYPE_CODES.items() if known == dtype)
    starts = accumulate((shard.tokens.size for shard in shards), initial=0)
    aside = path.with_name(f"{path.name}.tmp")
    with aside.open("wb") as sink:
        sink.write(IDX_MAGIC + np.array([1], "<u8").tobytes() + bytes([code]))
        sink.write(np.array([documents, documents + 1], "<u8").tobytes())
        for shard in shards:
            sink.write(_lengths(shard).tobytes())
        for start, shard in zip(starts, shards, strict=False):
            firsts = shard.pointers // shard.tokens.itemsize + np.int64(start)
            sink.write((firsts * dtype.itemsize).astype("<i8").tobytes())
        for first in range(0, documents + 1, CHUNK_BYTES):
            sink.write(np.arange(first, min(first + CHUNK_BYTES, documents + 1), dtype="<i8").tobytes())
    aside.replace(path)


def _lengths(shard: Shard) -> npt.NDArray[np.int32]:
    """The tokens of each document."""
    ends = np.append(shard.pointers[1:], shard.tokens.nbytes)
    return ((ends - shard.pointers) // shard.tokens.itemsize).astype("<i4")
