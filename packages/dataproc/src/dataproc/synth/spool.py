"""Documents in order of making → shards in order of a hash, with no more than one partition in memory.

Spool.add      each document to the partition of its hash, in files of their own
write_corpus   each partition sorted by hash: one shard per source, and its rows of truth.parquet
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard
from numpy.typing import NDArray

from dataproc import progress
from manifest.identity import hash64

PARTITION_CHARS = 32_000_000  # of median length each; the mean of a lognormal is half as much again
TRUTH = pa.schema(
    [
        ("id", pa.string()),
        ("source", pa.string()),
        ("base_id", pa.string()),
        ("kind", pa.string()),
        ("param", pa.float64()),
    ]
)


class Document(NamedTuple):
    """A document, and the truth of it."""

    id: str
    text: str
    source: str
    base_id: str
    kind: str
    param: float


class Spool:
    """Partitions by hash of the id, on disk. Their number follows from the number of characters that is expected."""

    def __init__(self, directory: Path, chars: int, seed: int) -> None:
        directory.mkdir(parents=True)
        self.seed = seed
        self.paths = [directory / f"{number:05d}" for number in range(chars // PARTITION_CHARS + 1)]
        self._files: list[IO[bytes]] = [path.open("wb") for path in self.paths]

    def add(self, document: Document) -> None:
        key = hash64(f"{self.seed}/{document.id}")
        self._files[key * len(self._files) >> 64].write(orjson.dumps([key, *document]) + b"\n")

    def close(self) -> None:
        for file in self._files:
            file.close()


@dataclass(frozen=True)
class Written:
    """What a corpus holds. `kinds`: documents by (kind, parameter); `sources`: (documents, bytes of text)."""

    documents: int
    text_bytes: int
    sha256: str
    kinds: Counter[tuple[str, float]]
    sources: dict[str, tuple[int, int]]
    lengths: NDArray[np.int64]
    largest_family: int


def write_corpus(spool: Spool, out: Path) -> Written:
    """The shards and the truth of what was spooled. The SHA-256 is over [id, source, text] in order of hash."""
    spool.close()
    digest = hashlib.sha256()
    kinds: Counter[tuple[str, float]] = Counter()
    families: Counter[str] = Counter()
    documents: Counter[str] = Counter()
    text_bytes: Counter[str] = Counter()
    lengths: list[int] = []
    with pq.ParquetWriter(out / "truth.parquet", TRUTH, compression="zstd") as truth:
        tracked = progress.track(spool.paths, label="shards", total=len(spool.paths), unit="partitions")
        for number, path in enumerate(tracked):
            rows = _sorted(path)
            for row in rows:
                digest.update(orjson.dumps([row.id, row.source, row.text]))
                lengths.append(len(row.text.encode()))
                kinds[row.kind, row.param] += 1
                families[row.base_id] += 1
                documents[row.source] += 1
                text_bytes[row.source] += lengths[-1]
            _write_shards(rows, out / "raw", number)
            truth.write_table(pa.Table.from_pylist([row._asdict() for row in rows], TRUTH))
    return Written(
        documents=len(lengths),
        text_bytes=sum(lengths),
        sha256=digest.hexdigest(),
        kinds=kinds,
        sources={name: (documents[name], text_bytes[name]) for name in sorted(documents)},
        lengths=np.array(lengths, np.int64),
        largest_family=max(families.values()),
    )


def _sorted(path: Path) -> list[Document]:
    """A partition in order of hash. The file is removed."""
    with path.open("rb") as file:
        rows = sorted((orjson.loads(line) for line in file), key=lambda row: row[0])
    path.unlink()
    return [Document(*row[1:]) for row in rows]


def _write_shards(rows: list[Document], raw: Path, number: int) -> None:
    lines: dict[str, list[bytes]] = {}
    for row in rows:
        lines.setdefault(row.source, []).append(orjson.dumps({"id": row.id, "text": row.text}))
    for source, found in lines.items():
        (raw / source).mkdir(parents=True, exist_ok=True)
        data = zstandard.compress(b"\n".join(found) + b"\n")
        (raw / source / f"{number:05d}.jsonl.zst").write_bytes(data)
