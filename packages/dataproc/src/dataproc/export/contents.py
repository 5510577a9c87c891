"""What a Parquet export holds: its files, and the configurations under which they are loaded."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa

from dataproc.export.parts import Part, Written
from dataproc.licences import capped
from manifest.mixture import Mixture

TRAIN, HELDOUT = "train", "heldout"
ALL_NAMES = ("default", "all", "everything")

Files = tuple[tuple[Part, Written], ...]


@dataclass(frozen=True)
class Config:
    """What is loaded under a name: files, by split, and the patterns that find them."""

    name: str
    files: Files
    patterns: dict[str, list[str]]

    def of(self, split: str) -> list[Written]:
        return [written for part, written in self.files if part.split == split]

    def rows(self, split: str) -> int:
        return sum(written.rows for written in self.of(split))

    def memory_bytes(self, split: str) -> int:
        return sum(written.memory_bytes for written in self.of(split))

    @property
    def file_bytes(self) -> int:
        return sum(written.file.bytes for _, written in self.files if written.file is not None)

    @property
    def text_bytes(self) -> int:
        return sum(written.text_bytes for written in self.of(TRAIN))

    @property
    def sources(self) -> Counter[str]:
        """Training documents of each source."""
        return sum((Counter(written.sources) for written in self.of(TRAIN)), Counter())

    @property
    def licences(self) -> Counter[str]:
        """Documents that name each licence."""
        return capped(sum((Counter(written.licences) for _, written in self.files), Counter()))


@dataclass(frozen=True)
class Contents:
    """The files of an export under their names."""

    mixture: Mixture
    schema: pa.Schema
    files: Files

    @cached_property
    def all(self) -> Config:
        """Every stream, and all that is held out."""
        name = next(name for name in ALL_NAMES if name not in self.mixture.streams)
        patterns = {TRAIN: ["data/*/train-*.parquet"]}
        if any(part.split == HELDOUT for part, _ in self.files):
            patterns[HELDOUT] = ["heldout/*/heldout-*.parquet"]
        return Config(name, self.files, patterns)

    @cached_property
    def streams(self) -> list[Config]:
        """Each stream, with what is held out of the sources that its documents are from."""
        return [self._stream(name) for name in self.mixture.streams]

    @property
    def shared(self) -> list[str]:
        """Streams that have documents of which another stream has some too, perhaps the same ones."""
        sources = Counter(source for config in self.streams for source in config.sources)
        return [config.name for config in self.streams if any(sources[source] > 1 for source in config.sources)]

    def _stream(self, name: str) -> Config:
        train = [(part, written) for part, written in self.files if part.folder == f"data/{name}"]
        sources = {source for _, written in train for source in written.sources}
        held = [(part, written) for part, written in self.files if part.split == HELDOUT and part.source in sources]
        patterns = {TRAIN: [f"data/{name}/train-*.parquet"]}
        if held:
            patterns[HELDOUT] = sorted({f"{part.folder}/heldout-*.parquet" for part, _ in held})
        return Config(name, (*train, *held), patterns)
