"""An index on disk: settings, and a log of batches and tombstones that only grows.

    index/<name>-<fingerprint>            settings.py; an artifact without files
    batches/000001-<fingerprint>          documents that were added, with what finds their near-duplicates (batch.py)
    tombstones/000002-<fingerprint>       documents that were removed (remove.py)

Every entry names the one before it, so none can be lost, and two cannot follow the same one. Documents and texts have
numbers, entry after entry. A *text* is a cleaned text that documents share: it is what is near to others. It is dead,
for good, once all its documents are; a document that brings it again brings a new text.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dataproc import progress
from dataproc.dedup.index.settings import Settings
from dataproc.dedup.index.tables import NUMBERS, read_table
from dataproc.dedup.stones import Stones, Tombstone, stones_of
from manifest.artifact import Opened, open_artifact
from manifest.errors import CorruptArtifact, InputError, NotAnArtifact
from manifest.record import Artifact, Model
from manifest.store import LocalStore, open_store

I64 = NDArray[np.int64]

KIND = "index"
BATCHES, TOMBSTONES = "batches", "tombstones"
EDGES_FILE = "edges.table"
DEAD_DOCUMENTS, DEAD_TEXTS = "dead_documents.table", "dead_texts.table"


class Part(Model):
    """What came from one shard of documents: so many documents, and so many texts that were new."""

    documents: int
    texts: int


class Numbers(Model):
    """What a batch says of itself: the numbers of its first document and text, its parts, its tables of band keys."""

    first_document: int
    first_text: int
    parts: tuple[Part, ...]
    band_tables: int

    @property
    def documents(self) -> int:
        return sum(part.documents for part in self.parts)

    @property
    def texts(self) -> int:
        return sum(part.texts for part in self.parts)


@dataclass(frozen=True)
class Batch:
    """An entry of the log that added documents."""

    directory: Path
    numbers: Numbers


@dataclass(frozen=True)
class Where:
    """Numbers of an index by the part that holds them: `firsts[i]` is the first of part `parts[i]`."""

    firsts: I64
    parts: tuple[tuple[Path, int, int], ...]  # directory of the batch, number of the part, documents or texts in it

    def split(self, numbers: I64) -> Iterator[tuple[Path, int, int, I64, I64]]:
        """(directory, part, its size, places in `numbers`, rows of the part), parts ascending, rows too."""
        if not len(numbers):
            return
        order = np.argsort(numbers, kind="stable")
        part_of = np.searchsorted(self.firsts, numbers[order], "right") - 1
        parts, starts = np.unique(part_of, return_index=True)
        for part, places in zip(parts, np.split(order, starts[1:]), strict=True):
            yield *self.parts[part], places, numbers[places] - self.firsts[part]


@dataclass(frozen=True)
class Index:
    """An index as it was when it was opened; it may be sent to workers."""

    root: Path
    settings: Settings
    batches: tuple[Batch, ...]
    removals: tuple[Path, ...]  # directories of the entries that removed documents
    entries: tuple[str, ...]  # the URIs of all entries, in order; at first the settings

    @property
    def documents(self) -> int:
        """How many were ever added: the number of the next one."""
        return sum(batch.numbers.documents for batch in self.batches)

    @property
    def texts(self) -> int:
        """How many texts were ever added: the number of the next one."""
        return sum(batch.numbers.texts for batch in self.batches)

    @cached_property
    def where_documents(self) -> Where:
        return self._where("documents")

    @cached_property
    def where_texts(self) -> Where:
        return self._where("texts")

    def dead_documents(self) -> I64:
        """The numbers of all that were removed, ascending."""
        return self._dead(DEAD_DOCUMENTS)

    def dead_texts(self) -> I64:
        """The numbers of the texts of which every document was removed, ascending."""
        return self._dead(DEAD_TEXTS)

    def tombstones(self) -> list[Tombstone]:
        """All tombstones, in order."""
        return [stone for directory in self.removals for stone in stones_of(directory)]

    def stones(self) -> Stones:
        return Stones.of(self.tombstones())

    def with_edges(self) -> tuple[Path, ...]:
        """The tables of edges of all entries."""
        return tuple(path / EDGES_FILE for path in (*(batch.directory for batch in self.batches), *self.removals))

    def _dead(self, name: str) -> I64:
        tables = [read_table(path / name, NUMBERS)[0] for path in self.removals]
        return np.unique(np.concatenate([np.zeros(0, np.int64), *tables])).astype(np.int64)

    def _where(self, what: Literal["documents", "texts"]) -> Where:
        parts = [
            (batch.directory, number, getattr(part, what))
            for batch in self.batches
            for number, part in enumerate(batch.numbers.parts)
        ]
        some = [part for part in parts if part[2]]
        sizes = np.array([size for _, _, size in some], np.int64)
        return Where(np.cumsum(sizes) - sizes, tuple(some))


def open_index(root: str | Path) -> Index:
    """The index at a path, with its entries so far.

    Raises NotAnArtifact if there is none, InputError for an object store, CorruptArtifact if an entry is missing.
    """
    store = local_store(root)
    names = store.list(KIND)
    if len(names) != 1:
        found = "no index" if not names else f"{len(names)} indexes, where one was expected"
        raise NotAnArtifact(f"{store.uri} holds {found}; make one with: dataproc index add {root} --recipe RECIPE …")
    settings = open_artifact(store.where(f"{KIND}/{names[0]}"), KIND)
    log = sorted((name, kind) for kind in (BATCHES, TOMBSTONES) for name in store.list(kind))
    opened = [settings, *(open_artifact(store.where(f"{kind}/{name}"), kind) for name, kind in log)]
    _require_chain(opened)
    return Index(
        store.root,
        Settings.read(settings.manifest.config, settings.uri),
        tuple(Batch(item.directory, _numbers(item)) for item in opened if item.manifest.kind == BATCHES),
        tuple(item.directory for item in opened if item.manifest.kind == TOMBSTONES),
        tuple(item.uri for item in opened),
    )


def local_store(root: str | Path) -> LocalStore:
    """The directory of an index as a store. Raises InputError for any other store."""
    store = open_store(root)
    if not isinstance(store, LocalStore):
        raise InputError(
            f"{store.uri}: an index is read by mapping its files, so it lies on a local or shared file system; give a "
            "directory"
        )
    if store.root.exists() and not store.root.is_dir():
        raise InputError(f"{store.root} is a file; an index is a directory")
    return store


def _numbers(batch: Opened) -> Numbers:
    assert isinstance(batch.manifest, Artifact)
    return Numbers.model_validate(batch.manifest.summary["numbers"])


def _require_chain(entries: list[Opened]) -> None:
    """Raises CorruptArtifact unless each entry was made upon the one before it."""
    for number, (before, entry) in enumerate(pairwise(entries), 1):
        if entry.manifest.inputs["previous"].id != before.manifest.id:
            raise CorruptArtifact(
                f"{entry.uri} does not follow upon {before.uri}: entry {number} of the index is missing or was "
                "replaced. Restore it, or build the index again"
            )


@contextmanager
def exclusive(store: LocalStore) -> Iterator[None]:
    """Only one process at a time writes to an index: a second one waits, and goes on upon what the first published."""
    store.root.mkdir(parents=True, exist_ok=True)
    with (store.root / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress.say(f"waiting: another process writes to {store.uri}")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
