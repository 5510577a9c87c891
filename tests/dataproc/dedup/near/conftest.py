"""Texts on either side of the threshold, and which of them are near-duplicates, by brute force over Python sets.

Documents are random words with some of them exchanged.
"""

from __future__ import annotations

import itertools
import random
import string
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from tests.dataproc.dedup.conftest import edited

from dataproc.workers import Workers

Make = Callable[..., Any]
Texts = dict[str, str]
THRESHOLD = 0.8


def shingles(text: str, unit: str = "char") -> set[Any]:
    cleaned = " ".join("".join(c for c in text.lower() if c not in string.punctuation).split())
    units: Any = cleaned if unit == "char" else cleaned.split()
    n = 13 if unit == "char" else 5
    return {tuple(units[i : i + n]) for i in range(len(units) - n + 1)}


def jaccard(a: str, b: str, unit: str = "char") -> float:
    first, second = shingles(a, unit), shingles(b, unit)
    return len(first & second) / len(first | second) if first | second else 1.0


def components(texts: Texts, unit: str = "char") -> set[frozenset[str]]:
    """The connected components of two or more of all pairs at the threshold."""
    sets = {i: shingles(text, unit) for i, text in texts.items()}
    parent = {i: i for i in texts}

    def find(i: str) -> str:
        while parent[i] != i:
            i = parent[i]
        return i

    for a, b in itertools.combinations(texts, 2):
        if len(sets[a] & sets[b]) >= THRESHOLD * len(sets[a] | sets[b]) > 0:
            parent[find(a)] = find(b)
    members: dict[str, set[str]] = defaultdict(set)
    for i in texts:
        members[find(i)].add(i)
    return {frozenset(group) for group in members.values() if len(group) > 1}


def near(recipe: Make, order: Iterable[str], dedup: dict[str, Any]) -> Any:
    """A recipe over the sources in `order` that does nothing but deduplicate."""
    sources = {name: {"files": f"{name}/*", "id": "id"} for name in order}
    return recipe(sources=sources, dedup={"scope": "global", "gates": {"max_source_loss": 1}, **dedup})


@pytest.fixture
def deduped(tmp_path: Path, write_raw: Make, recipe: Make, build: Make) -> Make:
    """Texts → a build up to their deduplication."""

    def run(texts: Texts, *, order: Iterable[str] = (), **dedup: Any) -> Any:
        names = list(order) or sorted({i.partition("/")[0] for i in texts})
        return build(
            near(recipe, names, dedup), write_raw(texts, tmp_path / "raw", 2), tmp_path / "store", until="deduped"
        )

    return run


@pytest.fixture(scope="session")
def of_families(
    tmp_path_factory: pytest.TempPathFactory,
    write_raw: Make,
    families: Texts,
    recipe: Make,
    build: Make,
) -> Make:
    """A build of `families`. All go into one store, so that they share what they can; `apart`: a new one of its own."""
    root = write_raw(families, tmp_path_factory.mktemp("raw"), 2)
    shared = tmp_path_factory.mktemp("store")

    def run(
        workers: Workers | None = None,
        *,
        apart: bool = False,
        store: Path = shared,
        until: str = "deduped",
        **dedup: Any,
    ) -> Any:
        store = tmp_path_factory.mktemp("apart") if apart else store
        return build(near(recipe, "ab", dedup), root, store, workers, until=until)

    return run


def kept(built: Any) -> set[str]:
    return {row["id"] for item in built.published for row in built.rows("deduped", item.manifest.name)}


def clusters(built: Any, group: str = "global") -> set[frozenset[str]]:
    members: dict[str, set[str]] = defaultdict(set)
    for row in built.rows("clusters", group):
        members[row["cluster"]].add(row["id"])
    assert all(name == min(ids) for name, ids in members.items())
    return {frozenset(ids) for ids in members.values()}


@pytest.fixture(scope="session")
def families(words: Make) -> Texts:
    """70 documents of two sources in families around common texts, up to 6 of their words exchanged."""
    rng = random.Random(5)
    texts: Texts = {}
    for family in range(14):
        base = words(family, rng.randrange(40, 90))
        for member in range(5):
            words_of_it = edited(base, 100 * family + member, rng.randrange(7)) if member else base
            texts[f"{rng.choice('ab')}/{family:02d}-{member}"] = " ".join(words_of_it)
    return texts


@pytest.fixture
def chain(words: Make) -> list[str]:
    first = words(1, 60)
    second = edited(first, 2, 2)
    texts = [" ".join(w) for w in (first, second, edited(second, 9, 2))]
    assert jaccard(texts[0], texts[1]) >= THRESHOLD <= jaccard(texts[1], texts[2])
    assert jaccard(texts[0], texts[2]) < THRESHOLD
    return texts
