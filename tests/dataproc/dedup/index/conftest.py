"""Small corpora with near-duplicates on either side of the threshold, and Jaccard indices by Python's own sets."""

from __future__ import annotations

import random
import string
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from tests.dataproc.dedup.conftest import edited

from dataproc.dedup.index.add import add, open_or_make, probe
from dataproc.dedup.index.state import Index
from dataproc.documents import rows_of
from dataproc.stage import Draft, shard_files
from dataproc.workers import Serial, Workers
from manifest.artifact import Opened

Make = Callable[..., Any]
Texts = Mapping[str, str]


@cache
def shingles(text: str) -> set[str]:
    cleaned = " ".join("".join(c for c in text.lower() if c not in string.punctuation).split())
    return {cleaned[i : i + 13] for i in range(len(cleaned) - 12)} or {cleaned}


@pytest.fixture(scope="session")
def jaccard() -> Callable[[str, str], float]:
    def index(a: str, b: str) -> float:
        return len(shingles(a) & shingles(b)) / len(shingles(a) | shingles(b))

    return index


@pytest.fixture(scope="session")
def corpus(words: Make) -> dict[str, str]:
    """70 documents of two sources, by id: families of edits, copies of some of them, and texts without a shingle."""
    rng = random.Random(5)
    texts: dict[str, str] = {}
    for family in range(12):
        base = words(family, rng.randrange(40, 90))
        for member in range(5):
            own = edited(base, 100 * family + member, rng.randrange(7)) if member else base
            texts[f"{rng.choice('ab')}/{family:02d}-{member}"] = " ".join(own)
    for number, copied in enumerate(rng.sample(sorted(texts), 6)):
        texts[f"{rng.choice('ab')}/copy-{number}"] = texts[copied].upper() + "!"
    return {**texts, "a/short-1": "Short", "b/short-2": "short.", "a/short-3": "other", "b/short-4": "..."}


@pytest.fixture(scope="session")
def near_recipe(recipe: Make) -> Make:
    """A recipe over sources with an id field that does nothing but deduplicate."""

    def make(sources: Iterable[str] = "ab", **overrides: Any) -> Any:
        dedup = {"scope": "global", "gates": {"max_source_loss": 1}, **overrides.pop("dedup", {})}
        named = {name: {"files": f"{name}/*", "id": "id"} for name in sources}
        return recipe(**{"sources": named, "dedup": dedup, **overrides})

    return make


@dataclass(repr=False)
class Shelf:
    """An index in a directory, to which texts are added."""

    root: Path
    recipe: Any
    documents: Callable[[Texts], list[Opened]]
    workers: Workers = field(default_factory=Serial)

    @property
    def index(self) -> Index:
        return open_or_make(self.root, self.recipe, self.workers)

    def add(self, texts: Texts) -> Opened:
        return add(self.index, self.documents(texts), workers=self.workers)

    def report(self, texts: Texts) -> list[dict[str, Any]]:
        """Adds texts; the rows of the report."""
        return [row for shard in shard_files(self.add(texts), "report") for row in rows_of(shard).to_pylist()]

    def probe(self, texts: Texts, scratch: Path) -> list[dict[str, Any]]:
        draft = Draft(scratch)
        return probe(self.index, self.documents(texts), workers=self.workers, draft=draft)[2].to_dicts()


@pytest.fixture(scope="session")
def documents(
    tmp_path_factory: pytest.TempPathFactory, write_raw: Make, near_recipe: Make, build: Make
) -> Callable[[Texts], list[Opened]]:
    """Texts by id → their documents artifacts, as a build publishes them."""
    store = tmp_path_factory.mktemp("documents")

    def make(texts: Texts) -> list[Opened]:
        raw = write_raw(texts, tmp_path_factory.mktemp("raw"))
        sources = sorted({identifier.partition("/")[0] for identifier in texts})
        return list(build(near_recipe(sources), raw, store, until="documents").published)

    return make


@pytest.fixture
def shelf(tmp_path: Path, near_recipe: Make, documents: Make) -> Make:
    """An empty index."""
    made = iter(range(100))

    def make(sources: str = "ab", workers: Workers | None = None, **dedup: Any) -> Shelf:
        return Shelf(
            tmp_path / f"index-{next(made)}", near_recipe(sources, dedup=dedup), documents, workers or Serial()
        )

    return make
