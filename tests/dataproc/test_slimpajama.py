"""Preset slimpajama: what the original does, step by step, on texts that tell it apart from `exact`."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

Make = Callable[..., Any]
SOURCES = {name: {"files": f"{name}/*", "id": "id"} for name in "ab"}


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory, write_jsonl: Make, words: Make) -> Path:
    """400 long documents in each source, some of them copies; 30 short ones, of which 10 have less than a shingle."""
    directory = tmp_path_factory.mktemp("raw")
    rng = random.Random(3)
    for source in "ab":
        texts = [" ".join(words(hash((source, n)) % 10**6, 50)) for n in range(400)]
        for _ in range(60):
            texts[rng.randrange(400)] = rng.choice(texts)
        texts += [f"short text {n} of {source}" for n in range(20)] + [f"no {n}" for n in range(10)]
        write_jsonl(directory / source / "x.jsonl", [{"id": n, "text": text} for n, text in enumerate(texts)])
    return directory


@pytest.fixture(scope="module")
def built(raw: Path, tmp_path_factory: pytest.TempPathFactory, recipe: Make, build: Make) -> Any:
    made = recipe(
        sources=SOURCES,
        clean={"min_chars": 200},
        dedup={"preset": "slimpajama"},
        holdout={"fraction": 0.02},
    )
    return build(made, raw, tmp_path_factory.mktemp("store"))


def texts(built: Any, kind: str) -> dict[str, str]:
    return {row["id"]: row["text"] for name in "ab" for row in built.rows(kind, name)}


def test_short_documents_take_part_in_dedup_and_are_dropped_after_it(built: Any) -> None:
    documents, deduped = texts(built, "documents"), texts(built, "deduped")
    short = {i for i, text in documents.items() if len(text) < 200}
    assert len(short) == 60
    assert not short & set(deduped)
    removed = built.ids("ledger", "global")
    assert len(removed & short) >= 19, "documents without a shingle are all alike"
    assert all(row["jaccard"] == 1.0 or row["id"] in short for row in built.rows("ledger", "global"))


def test_every_document_is_counted_once(built: Any) -> None:
    for row in built.mixture.summary["sources"].values():
        parts = ("unreadable", "short", "duplicates_within", "duplicates_across", "heldout", "near_heldout", "kept")
        assert sum(row[part] for part in parts) == row["records"] == 430


def test_the_first_of_what_dedup_left_are_held_out_of_each_source(built: Any) -> None:
    held = built.rows("heldout", "all", "heldout")
    removed = built.ids("ledger", "global")
    for source in "ab":
        documents = {row["id"]: row["text"] for row in built.rows("documents", source)}
        left = [i for i, text in documents.items() if i not in removed and len(text) >= 200]
        of_source = [row["id"] for row in held if row["source"] == source]
        assert len(of_source) == int(0.02 * len(left)) > 0
        assert set(of_source) <= set(left)


def test_training_has_no_text_that_is_held_out(built: Any) -> None:
    held = {hashlib.sha256(row["text"].encode()).digest() for row in built.rows("heldout", "all", "heldout")}
    assert held.isdisjoint(hashlib.sha256(text.encode()).digest() for text in texts(built, "deduped").values())


def test_copies_of_held_out_text_leave_training_where_nothing_is_deduplicated(
    raw: Path, tmp_path: Path, recipe: Make, build: Make
) -> None:
    made = recipe(
        sources=SOURCES, dedup={"preset": "slimpajama", "scope": "none"}, holdout={"fraction": 0.2, "max_share": 1}
    )
    built = build(made, raw, tmp_path, until="deduped")
    held = {row["id"]: row["text"] for row in built.rows("heldout", "all", "heldout")}
    excluded = {row["id"]: row["heldout"] for row in built.rows("heldout", "all", "excluded")}
    documents, deduped = texts(built, "documents"), texts(built, "deduped")
    copies = {i for i, text in documents.items() if text in held.values() and i not in held}
    assert set(excluded) == copies != set()
    assert all(documents[i] == held[of] for i, of in excluded.items())
    assert set(deduped) == set(documents) - set(held) - copies


def test_workers_do_not_change_it(
    raw: Path, built: Any, tmp_path: Path, recipe: Make, build: Make, ray_workers: Any
) -> None:
    made = recipe(sources=SOURCES, clean={"min_chars": 200}, dedup={"preset": "slimpajama"}, holdout={"fraction": 0.02})
    assert build(made, raw, tmp_path, ray_workers).id == built.id


def test_its_shards_are_plain_parquet(built: Any) -> None:
    (places,) = (f for f in built.artifact("heldout", "all").manifest.files() if f.path.startswith("places"))
    rows = pq.read_table(built.artifact("heldout", "all").directory / places.path)
    assert rows.column_names == ["source", "shard", "row"]
