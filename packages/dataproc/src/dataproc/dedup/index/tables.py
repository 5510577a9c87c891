"""Sorted tables, each a file that is mapped: many keys are looked up, and little else is read.

A table is its columns one after the other, little-endian and without a header, its rows in ascending order of the first
column, then of the second, and so on. Eight-byte columns come first, so that all are aligned.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dataproc.documents import file_sha256
from manifest.errors import CorruptArtifact
from manifest.record import Shard

Layout = tuple[str, ...]
Column = NDArray[np.generic]

BANDS: Layout = ("<u8", "<u4")  # band key, text of the entry
IDS: Layout = ("<u8", "<u4")  # hash of an id, document of the entry
HASHES: Layout = ("<u8", "<u8", "<u4")  # both halves of a text's hash, text of the entry
MEMBERS: Layout = ("<i8", "<u4")  # text of the index, document of the entry
EDGES: Layout = ("<i8", "<i8", "<f8")  # text of the index, another, their exact Jaccard index; both ways
NUMBERS: Layout = ("<i8",)  # texts or documents of the index


class Found(NamedTuple):
    """Row `rows[i]` of a table has the key `wanted[queries[i]]`. cut: keys of which not all rows are given."""

    queries: NDArray[np.int64]
    rows: NDArray[np.int64]
    cut: int


def write_table(path: Path, layout: Layout, columns: Sequence[Column]) -> Shard:
    """Sorts the rows and writes the file, whole or not at all."""
    order = np.lexsort([np.asarray(column) for column in reversed(columns)])
    aside = path.with_suffix(".tmp")
    with aside.open("wb") as file:
        for column, dtype in zip(columns, layout, strict=True):
            file.write(np.ascontiguousarray(np.asarray(column)[order], dtype).data)
    aside.replace(path)
    return file_record(path, len(order))


def file_record(path: Path, rows: int) -> Shard:
    """The record of a file whose bytes are its canonical content."""
    sha256 = file_sha256(path)
    return Shard(path=path.name, rows=rows, digest=sha256, bytes=path.stat().st_size, sha256=sha256)


def read_table(path: Path, layout: Layout) -> list[NDArray[np.generic]]:
    """The columns of a table, mapped. Raises CorruptArtifact."""
    widths = [np.dtype(dtype).itemsize for dtype in layout]
    data = map_bytes(path)
    rows, rest = divmod(len(data), sum(widths))
    if rest:
        raise CorruptArtifact(f"{path} has {len(data)} bytes, which are no rows of {sum(widths)}; restore it")
    starts = np.cumsum([0, *widths]) * rows
    return [
        data[start : start + rows * width].view(dtype)
        for start, width, dtype in zip(starts, widths, layout, strict=False)
    ]


def map_bytes(path: Path) -> NDArray[np.uint8]:
    """The bytes of a file, mapped. Raises CorruptArtifact."""
    try:
        if path.stat().st_size == 0:  # which cannot be mapped
            return np.zeros(0, np.uint8)
        return np.asarray(np.memmap(path, np.uint8, "r"))
    except OSError as error:
        raise CorruptArtifact(f"{path} cannot be read ({error}): it is part of an index; restore it") from error


def find(keys: NDArray[np.generic], wanted: NDArray[np.generic], *, limit: int | None = None) -> Found:
    """The rows of each wanted key in an ascending column, of each at most the first `limit`."""
    order = np.argsort(wanted, kind="stable")  # neighbours in the file are read together
    ordered = wanted[order].astype(keys.dtype)
    first = np.searchsorted(keys, ordered, "left")
    sizes = np.searchsorted(keys, ordered, "right") - first
    cut = 0
    if limit is not None:
        cut = len(np.unique(ordered[sizes > limit]))
        sizes = np.minimum(sizes, limit)
    queries = np.repeat(order, sizes)
    rows = np.arange(sizes.sum()) + np.repeat(first - (np.cumsum(sizes) - sizes), sizes)
    return Found(queries, rows, cut)
