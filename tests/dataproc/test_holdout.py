"""The held-out documents: the same for every scope, and nothing like them in training."""

from __future__ import annotations

import random
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

Make = Callable[..., Any]
SCOPES = ("global", "local", "none")


def shingles(text: str) -> set[str]:
    cleaned = " ".join("".join(c for c in text.lower() if c not in string.punctuation).split())
    return {cleaned[i : i + 13] for i in range(len(cleaned) - 12)}


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory, write_jsonl: Make, words: Make) -> Path:
    """Two sources of 150 documents; a third of them are near-duplicates of another, of either source."""
    directory = tmp_path_factory.mktemp("raw")
    rng = random.Random(1)
    texts: list[str] = []
    for i in range(300):
        if i and rng.random() < 0.35:
            chosen = rng.choice(texts).split()
            chosen[rng.randrange(len(chosen))] = "exchanged"
            texts.append(" ".join(chosen))
        else:
            texts.append(" ".join(words(i, 50)))
    for source in "ab":
        rows = [{"id": i, "text": text} for i, text in enumerate(texts) if (i % 2 == 0) == (source == "a")]
        write_jsonl(directory / source / "x.jsonl", rows)
    return directory


@pytest.fixture(scope="module")
def held(raw: Path, tmp_path_factory: pytest.TempPathFactory, recipe: Make, build: Make) -> Make:
    store = tmp_path_factory.mktemp("store")

    def run(scope: str = "global", **holdout: float) -> Any:
        sources = {name: {"files": f"{name}/*", "id": "id"} for name in "ab"}
        made = recipe(sources=sources, dedup={"scope": scope}, holdout={"fraction": 0.15, "max_share": 0.5, **holdout})
        return build(made, raw, store, until="deduped")

    return run


def training(built: Any) -> dict[str, str]:
    files = [item.directory / shard.path for item in built.published for shard in item.manifest.shards]
    return {row["id"]: row["text"] for file in files for row in pq.read_table(file).to_pylist()}


def test_every_scope_holds_out_the_same_documents(held: Make) -> None:
    ids = [held(scope).artifact("heldout", "all").manifest.id for scope in SCOPES]
    assert len(set(ids)) == 1


@pytest.mark.parametrize("scope", SCOPES)
def test_no_training_document_is_near_a_held_out_one(held: Make, scope: str) -> None:
    built = held(scope)
    heldout = {row["id"]: shingles(row["text"]) for row in built.rows("heldout", "all", "heldout")}
    trained = {i: shingles(text) for i, text in training(built).items()}
    excluded = built.ids("heldout", "all", "excluded")
    assert len(heldout) > 20
    assert len(excluded) > 5
    assert not trained.keys() & (heldout.keys() | excluded)
    alike = [(i, j) for i, a in trained.items() for j, b in heldout.items() if len(a & b) >= 0.8 * len(a | b)]
    assert alike == []


def test_without_dedup_all_but_the_held_out_is_trained_on(held: Make) -> None:
    built = held("none")
    out = built.ids("heldout", "all", "heldout") | built.ids("heldout", "all", "excluded")
    everything = built.ids("documents", "a") | built.ids("documents", "b")
    assert set(training(built)) == everything - out


def test_an_excluded_document_names_the_held_out_one_of_its_cluster(held: Make) -> None:
    built = held()
    clusters = {row["id"]: row["cluster"] for row in built.rows("clusters", "global")}
    heldout = built.ids("heldout", "all", "heldout")
    for row in built.rows("heldout", "all", "excluded"):
        assert row["heldout"] in heldout
        assert clusters[row["id"]] == clusters[row["heldout"]]


def test_held_out_documents_are_whole(held: Make) -> None:
    built = held()
    documents = {row["id"]: row for name in "ab" for row in built.rows("documents", name)}
    assert all(documents[row["id"]] == row for row in built.rows("heldout", "all", "heldout"))


@pytest.mark.parametrize("max_share", [0.0, 0.02, 0.05])
def test_no_source_loses_more_than_its_share(held: Make, max_share: float) -> None:
    built = held("none", fraction=0.9, max_share=max_share)
    lost = [row["id"] for stem in ("heldout", "excluded") for row in built.rows("heldout", "all", stem)]
    for source in "ab":
        of_source = sum(i.startswith(source) for i in lost)
        assert of_source <= max_share * 150
        assert of_source >= max_share * 150 - 3


def test_a_fraction_of_0_holds_nothing_out(held: Make) -> None:
    built = held("none", fraction=0)
    with pytest.raises(KeyError):
        built.artifact("heldout", "all")
    assert len(training(built)) == 300
