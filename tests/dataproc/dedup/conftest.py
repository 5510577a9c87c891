"""A corpus of three sources that share near-duplicates of every degree."""

from __future__ import annotations

import random
import string
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

Make = Callable[..., Any]
Texts = dict[str, str]
SOURCES = ("a", "b", "c")


def edited(words: list[str], seed: int, edits: int) -> list[str]:
    """The same words, `edits` of them exchanged."""
    rng = random.Random(seed)
    changed = list(words)
    for place in rng.sample(range(len(words)), edits):
        changed[place] = "".join(rng.choices(string.ascii_lowercase, k=8))
    return changed


@pytest.fixture(scope="session")
def write_raw(write_jsonl: Make) -> Callable[..., Path]:
    """(texts by id (source/name), root) → root, with up to so many raw files for each source."""

    def write(texts: Mapping[str, str], root: Path, files: int = 1) -> Path:
        records: dict[str, list[dict[str, str]]] = defaultdict(list)
        for identifier, text in texts.items():
            source, _, name = identifier.partition("/")
            records[source].append({"id": name, "text": text})
        for source, rows in records.items():
            for number in range(min(files, len(rows))):
                write_jsonl(root / source / f"{number}.jsonl", rows[number::files])
        return root

    return write


@dataclass(frozen=True)
class Corpus:
    """Texts by id (source/name), and the raw files that hold them."""

    texts: Texts
    raw: Path

    @property
    def sources(self) -> list[str]:
        return sorted({identifier.partition("/")[0] for identifier in self.texts})


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory, write_raw: Make) -> Callable[[Texts], Corpus]:
    """Texts by id → raw files."""

    def make(texts: Texts) -> Corpus:
        return Corpus(texts, write_raw(texts, tmp_path_factory.mktemp("raw"), 2))

    return make


@pytest.fixture(scope="session")
def mixed(corpus: Callable[[Texts], Corpus], words: Make) -> Corpus:
    """Families around common texts with up to 12 words exchanged, among them copies, one of 14 near-copies; and texts
    too short for a shingle, some of them equal.
    """
    rng = random.Random(7)
    texts: Texts = {}
    for family, size in enumerate([14] + [6] * 22):
        base = words(family, rng.randrange(40, 90))
        for member in range(size):
            text = list(base)
            for place in rng.sample(range(len(text)), rng.choice([0, 0, 1, 1, 2, 3, 5, 8, 12])):
                text[place] = words(1000 * family + member, 1)[0]
            texts[f"{rng.choice(SOURCES)}/{rng.randrange(1000):03d}-{family}-{member}"] = " ".join(text)
    for number in range(9):
        texts[f"{SOURCES[number % 3]}/short-{number}"] = f"short {number % 4}"
    return corpus(texts)


@pytest.fixture(scope="session")
def dedup_recipe(recipe: Make) -> Make:
    """A recipe over sources that does nothing but deduplicate."""

    def make(sources: list[str], *, holdout: float = 0, **dedup: Any) -> Any:
        files = {name: {"files": f"{name}/*", "id": "id"} for name in sources}
        return recipe(
            sources=files,
            dedup={"scope": "global", "gates": {"max_source_loss": 1}, **dedup},
            holdout={"fraction": holdout, "max_share": 1},
        )

    return make
