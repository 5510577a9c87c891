"""Winnow as a system: `dataproc build --until deduped`, from documents that are there already, or from raw files on."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import pyarrow.parquet as pq

from bench.dedup.corpora import Corpus

ROOT = Path(__file__).parents[2]
RECIPES = ROOT / "recipes" / "bench"


@dataclass(frozen=True)
class Winnow:
    """`workers` as the command takes it. `from_raw`: documents are part of what is measured."""

    name: str
    settings: str
    recipe: Path
    workers: str
    from_raw: bool = False
    at_most: int = 10**9
    by_words: bool = True

    @property
    def version(self) -> str:
        return version("winnow-dataproc")

    @property
    def digest(self) -> str:
        return _digest([_code_digest(), self.recipe.read_text(), self.workers, str(self.from_raw)])

    def command(self, home: Path, corpus: Corpus, work: Path) -> list[str]:
        if not self.from_raw:
            linked_copy(self.documents(home, corpus), work / "store")
        return self.build(corpus, work / "store", "deduped", self.workers)

    def removed(self, work: Path) -> list[str]:
        """The ids of documents that are not among the deduped ones, without the source before each."""

        def ids(kind: str) -> set[str]:
            shards = (work / "store" / kind).glob("*/documents*.parquet")
            return {i for shard in shards for i in pq.read_table(shard, columns=["id"])["id"].to_pylist()}

        return sorted(i.partition("/")[2] for i in ids("documents") - ids("deduped"))

    def build(self, corpus: Corpus, store: Path, until: str, workers: str = "serial") -> list[str]:
        where = ["--raw", str((corpus.path / "raw").absolute()), "--out", str(store.absolute())]
        options = [*where, "--until", until, "--workers", workers]
        return [sys.executable, "-m", "dataproc.cli", "build", str(self.recipe.absolute()), *options]

    def documents(self, home: Path, corpus: Corpus) -> Path:
        """A store with the documents only, made once per corpus, code and recipe."""
        store = home / "stores" / f"{corpus.name}-{_digest([_code_digest(), self.recipe.read_text()])}"
        if not store.exists():
            aside = store.with_name(f".{store.name}")
            shutil.rmtree(aside, ignore_errors=True)
            subprocess.run(self.build(corpus, aside, "documents"), check=True, capture_output=True)
            aside.replace(store)
        return store


SYSTEMS = (
    Winnow("Winnow, serial", "21 × 6, exact check; writes deduped Parquet", RECIPES / "dedup.yaml", "serial"),
    Winnow("Winnow, local:2", "the same on Ray, 2 workers", RECIPES / "dedup.yaml", "local:2"),
    Winnow("Winnow, from raw", "serial; with reading and ftfy", RECIPES / "dedup_from_raw.yaml", "serial", True),
    Winnow(
        "Winnow, from raw, characters",
        "the same by 13 characters, a build's default",
        RECIPES / "dedup_from_raw_characters.yaml",
        "serial",
        from_raw=True,
        by_words=False,
    ),
)


def linked_copy(store: Path, to: Path) -> None:
    """A store of its own for a run; its files are links, which nothing writes to."""
    shutil.copytree(store, to, copy_function=os.link)


def _code_digest() -> str:
    """Of Winnow's code that a build runs."""
    files = sorted(path for name in ("dataproc", "manifest") for path in (ROOT / "packages" / name).rglob("*.py"))
    return _digest([path.read_text() for path in files])


def _digest(parts: Sequence[str]) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]
