"""Documents that a user names → a sample of their texts, by source.

An artifact of documents (or a mixture, whose deduplicated documents are meant), or raw: a directory or a file, whose
name is the source's. The sample is the documents of the smallest hashes, so it does not depend on order or files.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from pathlib import Path

from dataproc import progress
from dataproc.dedup.reached import Found, opened, reach
from dataproc.documents import batches
from dataproc.raw import RawRoot, Unreadable, records
from dataproc.recipe.sources import Source
from dataproc.rows import RecordError, record_text
from dataproc.stage import shard_files
from manifest.errors import InputError, WrongArtifact
from manifest.identity import hash64
from manifest.record import MANIFEST

KINDS = ("documents", "deduped", "heldout")


class Sample:
    """The texts of the smallest hashes: as many as have `most` bytes together, and one at least."""

    def __init__(self, most: int) -> None:
        self.most, self.size = most, 0
        self._left_out = 1 << 64  # the smallest hash that is not in the sample
        self._kept: list[tuple[int, str, str]] = []

    def add(self, identifier: str, text: str) -> None:
        key = hash64(identifier)
        if key >= self._left_out:
            return
        heapq.heappush(self._kept, (-key, identifier, text))
        self.size += len(text.encode("utf-8", "replace"))
        while self.size > self.most and len(self._kept) > 1:
            largest, _, text = heapq.heappop(self._kept)
            self._left_out = -largest
            self.size -= len(text.encode("utf-8", "replace"))

    @property
    def texts(self) -> list[str]:
        """In order of hash."""
        return [text for _, _, text in sorted(self._kept, reverse=True)]


def texts_by_source(given: Sequence[str], field: str, most: int) -> dict[str, list[str]]:
    """field: of raw records, the text. most: bytes per source. Raises InputError."""
    found: dict[str, Sample] = {}
    for place in given:
        rows = _rows(place) if _is_artifact(place) else _records(place, field)
        for source, identifier, text in rows:
            found.setdefault(source, Sample(most)).add(identifier, text)
    return {source: sample.texts for source, sample in found.items()}


def made_from(tokenizers: Sequence[str]) -> list[str]:
    """The documents that artifacts were made from. Raises InputError if there are none."""
    artifacts = [uri for uri in tokenizers if _is_artifact(uri)]
    found = [item.uri for item in reach(artifacts).of_kind("deduped")] if artifacts else []
    if not found:
        raise InputError(
            "nothing to measure on: these tokenizers were not built from documents here; give some with --on: an "
            "artifact of documents, a mixture, or raw files"
        )
    return found


def _is_artifact(place: str) -> bool:
    return "://" in place or (Path(place) / MANIFEST).is_file()


def _rows(uri: str) -> Iterator[tuple[str, str, str]]:
    """(source, id, text)"""
    reached = reach([uri])
    (named,) = reached.named
    items = [named] if named.manifest.kind in KINDS else reached.of_kind("deduped")
    if not items:
        raise WrongArtifact(
            f"--on {uri}: {named.title} has no documents; give {', '.join(KINDS)} or a mixture, or raw files"
        )
    files = [file for item in items for file in _shards(item)]
    for file in progress.track(files, label="documents", total=len(files), unit="shards"):
        for batch in batches(file, ["source", "id", "text"]):
            yield from zip(*(batch[name].to_pylist() for name in ("source", "id", "text")), strict=True)


def _shards(item: Found) -> list[Path]:
    return shard_files(opened(item), "heldout" if item.manifest.kind == "heldout" else "documents")


def _records(place: str, field: str) -> Iterator[tuple[str, str, str]]:
    """The records of raw files; those without text are left out."""
    path = Path(place).absolute()
    if not path.exists():
        raise InputError(f"--on {place}: there is nothing at this path; give documents, a mixture, or raw files")
    source = path.name.split(".")[0]
    pattern = f"{path.name}/**" if path.is_dir() else path.name
    files = RawRoot(str(path.parent)).files(source, Source(files=(pattern,)))
    for file in progress.track(files, label=source, total=len(files), unit="files"):
        for number, record in records(file):
            if isinstance(record, Unreadable):
                continue
            try:
                yield source, f"{file.path}/{number}", record_text(record, field)
            except RecordError:
                continue
