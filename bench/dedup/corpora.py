"""The corpora of a benchmark: raw text → planted corpus → Parquet for the peers, and the exact answer.

    <home>/raw                        text of this machine (`dataproc gather`), unless raw text is given
    <home>/corpora/<name>-<N>/        what `dataproc synth` wrote
        parquet/*.parquet             id, source, text: SHARDS files of equally many documents
        answer-<unit><n>.npz          component of each document in that order, at J ≥ 0.8

Every step is done once; what is there is taken as it is.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from bench.dedup.oracle import I64, Score, components, gram_sets, near_pairs, score

SHARDS = 16
THRESHOLD = 0.8
GATHER_MB = 400
SCHEMA = pa.schema([("id", pa.string()), ("source", pa.string()), ("text", pa.large_string())])


@dataclass(frozen=True)
class Corpus:
    """A corpus on disk."""

    path: Path

    @property
    def facts(self) -> dict[str, Any]:
        return dict(json.loads((self.path / "corpus.json").read_bytes()))

    @property
    def name(self) -> str:
        return f"{self.path.name}-{self.facts['sha256'][:12]}"

    @property
    def ids(self) -> list[str]:
        return [name for shard in self.shards for name in pq.read_table(shard, columns=["id"])["id"].to_pylist()]

    @property
    def shards(self) -> list[Path]:
        return sorted((self.path / "parquet").iterdir())

    def score(self, removed: list[str]) -> Score:
        """How a list of removed ids compares with the exact answer."""
        ids = self.ids
        unknown = set(removed) - set(ids)
        if unknown:
            raise ValueError(f"{len(unknown)} removed ids are not in {self.path}, such as {min(unknown)!r}")
        gone = set(removed)
        return score(np.array([name in gone for name in ids]), self.answer())

    def answer(self) -> I64:
        """The component of each document, in order of the shards."""
        file = self.path / "answer-word5.npz"
        if not file.exists():
            print(f"  exact answer for {self.name} ...", file=sys.stderr, flush=True)
            sets = gram_sets(self._texts())
            labels = components(near_pairs(sets, THRESHOLD), len(sets))
            aside = file.with_name(".answer.npz")
            np.savez(aside, labels=labels)
            aside.replace(file)
        return np.asarray(np.load(file)["labels"], np.int64)

    def _texts(self) -> Iterator[str]:
        for shard in self.shards:
            for batch in pq.ParquetFile(shard).iter_batches(2048, columns=["text"]):
                yield from batch["text"].to_pylist()


def corpus(home: Path, recipe: Path, documents: int, raw: Path | None) -> Corpus:
    """The corpus of a recipe and a number of documents, over `raw` or over what is gathered on this machine."""
    source = raw or _gathered(home)
    path = home / "corpora" / f"{recipe.stem}-{documents}"
    options = ["--raw", str(source), "--documents", str(documents), "--out", str(path)]
    _dataproc("synth", str(recipe), *options)
    made = Corpus(path)
    if not (path / "parquet").exists():
        _write_parquet(path)
    return made


def _gathered(home: Path) -> Path:
    """Text of this machine; gathered again it is the same, as sources that are there are kept."""
    _dataproc("gather", "--out", str(home / "raw"), "--limit-mb", str(GATHER_MB))
    return home / "raw"


def _dataproc(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "dataproc.cli", *arguments], check=True, stdout=subprocess.DEVNULL)


def _write_parquet(path: Path) -> None:
    aside = path / ".parquet"
    aside.mkdir(exist_ok=True)
    total = json.loads((path / "corpus.json").read_bytes())["documents"]
    per_shard = -(-total // SHARDS)
    rows: list[dict[str, str]] = []
    number = 0
    for row in _rows(path):
        rows.append(row)
        if len(rows) == per_shard:
            _write_shard(aside / f"{number:05d}.parquet", rows)
            rows, number = [], number + 1
    if rows:
        _write_shard(aside / f"{number:05d}.parquet", rows)
    aside.replace(path / "parquet")


def _write_shard(path: Path, rows: list[dict[str, str]]) -> None:
    pq.write_table(pa.Table.from_pylist(rows, SCHEMA), path, compression="lz4", row_group_size=2048)


def _rows(path: Path) -> Iterator[dict[str, str]]:
    """The documents of all sources, partition by partition, so that sources are mixed as the corpus was."""
    for shard in sorted(path.glob("raw/*/*.jsonl.zst"), key=lambda p: (p.name, p.parent.name)):
        with shard.open("rb") as file, zstandard.ZstdDecompressor().stream_reader(file) as stream:
            for line in io.BufferedReader(stream):
                yield {**orjson.loads(line), "source": shard.parent.name}
