"""A token shard on disk: Megatron's indexed dataset, and `.ids` beside it.

    .bin   tokens of all documents, end to end; uint16 when the vocabulary allows, else int32
    .idx   b"MMIDIDX\\0\\0", u64 version 1, u8 dtype code, u64 documents, u64 documents + 1,
           i32 lengths[documents] (tokens), i64 pointers[documents] (bytes), i64 boundaries[documents + 1]
    .ids   b"WNWIDS\\0\\1", u64 documents, u64 hashes[documents], u64 offsets[documents + 1],
           UTF-8 ids end to end
    .mask  where only a part of a document is learned: u8 per token of `.bin`, 1 where it is

Documents lie in order of (hash64(id), id), so `.ids` finds a document by binary search, and the same files
serve Megatron-LM, GPT-NeoX and NeMo. Everything is little-endian and memory-mapped.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import numpy as np
import numpy.typing as npt

from manifest.errors import CorruptArtifact
from manifest.identity import hash64
from manifest.mapped import MappedFile, read_together

IDX_MAGIC = b"MMIDIDX\x00\x00"
IDS_MAGIC = b"WNWIDS\x00\x01"
DTYPE_CODES: dict[int, np.dtype[np.generic]] = {8: np.dtype("<u2"), 4: np.dtype("<i4")}

SCAN_BYTES = 1 << 24
"""How much of the ids a search by content has in memory."""

Tokens = npt.NDArray[np.generic]


def token_dtype(vocab_size: int) -> np.dtype[np.generic]:
    """The dtype that Megatron gives a vocabulary: uint16 below 65,500 ids, else int32."""
    return np.dtype("<u2") if vocab_size < 65500 else np.dtype("<i4")


class ShardWriter:
    """Writes one shard, document by document, in order of (hash64(id), id). Use as a context manager.

    masked: whether it says of every token if it is learned.
    """

    def __init__(self, stem: Path, dtype: np.dtype[np.generic], *, masked: bool = False) -> None:
        self.stem, self.dtype = stem, dtype
        self.tokens = 0
        self._lengths: list[int] = []
        self._hashes: list[int] = []
        self._ids: list[bytes] = []
        self._bin: BinaryIO = _file(stem, ".bin").open("wb")
        self._mask: BinaryIO | None = _file(stem, ".mask").open("wb") if masked else None

    def add(self, document_id: str, tokens: npt.ArrayLike, learned: npt.ArrayLike | None = None) -> None:
        """Appends a document. `tokens` end with the end-of-text token; `learned` says which of them are (None: all)."""
        array = np.ascontiguousarray(tokens, dtype=self.dtype)
        if isinstance(tokens, np.ndarray):  # NumPy checks lists itself
            assert np.array_equal(array, tokens), f"{document_id} has a token that {self.dtype} cannot hold"
        key = (hash64(document_id), document_id.encode("utf-8"))
        assert not self._ids or (self._hashes[-1], self._ids[-1]) < key, "documents come in order of (hash, id)"
        if self._mask is not None:
            mask = np.ones(array.size, "u1") if learned is None else np.asarray(learned, bool).astype("u1")
            assert mask.shape == array.shape, f"{document_id}: {mask.size} marks for {array.size} tokens"
            self._mask.write(mask.data)
        else:
            assert learned is None, "a shard without a mask learns all"
        self._bin.write(array.data)
        self._lengths.append(array.size)
        self._hashes.append(key[0])
        self._ids.append(key[1])
        self.tokens += array.size

    @property
    def documents(self) -> int:
        return len(self._ids)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bin.close()
        if self._mask is not None:
            self._mask.close()
        if kind is None:
            self._write_idx()
            self._write_ids()

    def _write_idx(self) -> None:
        lengths = np.asarray(self._lengths, dtype="<i4")
        ends = np.cumsum(lengths, dtype="<i8") * self.dtype.itemsize
        pointers = np.concatenate([np.zeros(1, "<i8"), ends])[:-1]
        code = next(code for code, dtype in DTYPE_CODES.items() if dtype == self.dtype)
        with _file(self.stem, ".idx").open("wb") as file:
            file.write(IDX_MAGIC)
            file.write(np.array([1], "<u8").tobytes())
            file.write(np.array([code], "u1").tobytes())
            file.write(np.array([lengths.size, lengths.size + 1], "<u8").tobytes())
            file.write(lengths.tobytes())
            file.write(pointers.astype("<i8").tobytes())
            file.write(np.arange(lengths.size + 1, dtype="<i8").tobytes())

    def _write_ids(self) -> None:
        offsets = np.concatenate([[0], np.cumsum([len(i) for i in self._ids], dtype=np.uint64)]).astype("<u8")
        with _file(self.stem, ".ids").open("wb") as file:
            file.write(IDS_MAGIC)
            file.write(np.array([len(self._ids)], "<u8").tobytes())
            file.write(np.asarray(self._hashes, dtype="<u8").tobytes())
            file.write(offsets.tobytes())
            file.write(b"".join(self._ids))


@dataclass(frozen=True)
class Shard:
    """An open token shard. Arrays are memory maps; nothing is read before it is asked for."""

    tokens: Tokens
    pointers: npt.NDArray[np.int64]
    """First byte of each document in `.bin`."""
    hashes: npt.NDArray[np.uint64]
    id_offsets: npt.NDArray[np.uint64]
    id_bytes: npt.NDArray[np.uint8]
    mask: npt.NDArray[np.uint8] | None = None
    """1 per token that is learned; None if all are."""
    at_random: bool = False
    """Whether the tokens are mapped so; see `open_shard`."""

    def read(self, start: int, stop: int) -> Tokens:
        """Tokens [start, stop)."""
        found = self.tokens[start:stop]
        if self.at_random:
            read_together(found)
        return found

    @property
    def documents(self) -> int:
        return int(self.hashes.size)

    def start(self, index: int) -> int:
        """The first token of a document; for index = documents, the number of tokens."""
        if index == self.documents:
            return int(self.tokens.size)
        return int(self.pointers[index]) // self.tokens.itemsize

    def starts_within(self, start: int, stop: int) -> npt.NDArray[np.int64]:
        """The first tokens of the documents that begin in tokens [start, stop)."""
        size = self.tokens.itemsize  # bisect: see `spans`
        low, high = bisect_left(self.pointers, start * size), bisect_left(self.pointers, stop * size)
        return np.asarray(self.pointers[low:high], np.int64) // size

    def document_id(self, index: int) -> str:
        first, stop = int(self.id_offsets[index]), int(self.id_offsets[index + 1])
        return bytes(self.id_bytes[first:stop]).decode("utf-8")

    def find(self, document_id: str) -> int | None:
        """The index of a document, by binary search; None if the shard does not have it."""
        key = np.uint64(hash64(document_id))
        index = int(np.searchsorted(self.hashes, key))
        while index < self.documents and self.hashes[index] == key:
            if self.document_id(index) == document_id:
                return index
            index += 1
        return None

    def find_content(self, digest: str) -> Iterator[str]:
        """The ids of the documents whose id ends in a content hash. Reads all ids, unlike `find`."""
        needle = f"/{digest}".encode()
        for base in range(0, self.id_bytes.size, SCAN_BYTES):
            chunk = self.id_bytes[base : base + SCAN_BYTES + len(needle) - 1].tobytes()
            place = chunk.find(needle)
            while place >= 0:
                index = int(np.searchsorted(self.id_offsets, np.uint64(base + place), side="right")) - 1
                document_id = self.document_id(index)
                if document_id.rpartition("/")[2].partition(".")[0] == digest:
                    yield document_id
                place = chunk.find(needle, place + 1)

    def spans(self, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """The documents in tokens [start, stop): (document, first token, last + 1), clipped to it."""
        # bisect, for the pointers are not aligned and NumPy would copy them all to search them.
        index = bisect_right(self.pointers, start * self.tokens.itemsize) - 1
        while index < self.documents and (first := self.start(index)) < stop:
            last = min(self.start(index + 1), stop)
            if max(first, start) < last:
                yield index, max(first, start), last
            index += 1


def open_shard(stem: Path, *, masked: bool = False, at_random: bool = False) -> Shard:
    """Maps `.bin`, `.idx`, `.ids` and, if `masked`, `.mask`. Raises CorruptArtifact if they are not these.

    at_random: of its tokens just what is asked for is read, as suits a stream that is larger than memory. Otherwise the
    system reads ahead, often megabytes for a block of 16 KB.
    """
    idx, ids = (MappedFile(_file(stem, suffix), at_random=True) for suffix in (".idx", ".ids"))
    dtype, documents = _idx_header(idx)
    if ids.head(16) != IDS_MAGIC + documents.to_bytes(8, "little"):
        raise CorruptArtifact(
            f"{ids.path} does not list the {documents} documents of {idx.path}; build the stream again"
        )
    lengths = idx.array(np.dtype("<i4"), 34, documents)
    pointers = idx.array(np.dtype("<i8"), 34 + 4 * documents, documents)
    offsets = ids.array(np.dtype("<u8"), 16 + 8 * documents, documents + 1)
    token_bytes = int(pointers[-1]) + int(lengths[-1]) * dtype.itemsize if documents else 0
    tokens = MappedFile(_file(stem, ".bin"), at_random=at_random)
    tokens.require_size(token_bytes)
    idx.require_size(34 + 20 * documents + 8)
    ids.require_size(16 + 8 * (2 * documents + 1) + int(offsets[-1]))
    count = token_bytes // dtype.itemsize
    mask = MappedFile(_file(stem, ".mask")) if masked else None
    if mask is not None:
        mask.require_size(count)
    return Shard(
        tokens=tokens.array(dtype, 0, count),
        pointers=pointers,
        hashes=ids.array(np.dtype("<u8"), 16, documents),
        id_offsets=offsets,
        id_bytes=ids.array(np.dtype("u1"), 16 + 8 * (2 * documents + 1), int(offsets[-1])),
        mask=None if mask is None else mask.array(np.dtype("u1"), 0, count),
        at_random=at_random,
    )


def _file(stem: Path, suffix: str) -> Path:
    return stem.with_name(stem.name + suffix)  # not with_suffix: a stem may have dots of its own


def _idx_header(idx: MappedFile) -> tuple[np.dtype[np.generic], int]:
    """The dtype of the tokens and the number of documents."""
    header = idx.head(34)
    version = IDX_MAGIC + (1).to_bytes(8, "little")
    if len(header) < 34 or not header.startswith(version) or header[17] not in DTYPE_CODES:
        raise CorruptArtifact(
            f"{idx.path} is not a Megatron index of a dtype that Winnow writes; build the stream again"
        )
    return DTYPE_CODES[header[17]], int.from_bytes(header[18:26], "little")
