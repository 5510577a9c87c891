"""Ids are unique: a repeated id of a field is an error, and copies without ids are numbered."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataproc import raw
from dataproc.identifiers import content_ids
from dataproc.workers import Serial
from manifest.errors import DataError
from manifest.identity import content_id

Make = Callable[..., Any]


@pytest.fixture
def documents(tmp_path: Path, write_jsonl: Make, recipe: Make, build: Make) -> Make:
    def run(files: dict[str, list[dict[str, Any]]], **source: Any) -> Any:
        for name, records in files.items():
            write_jsonl(tmp_path / "raw" / "a" / name, records)
        made = recipe(sources={"a": {"files": "a/*", **source}})
        return build(made, tmp_path / "raw", tmp_path / "store", until="documents")

    return run


@given(st.lists(st.text(), max_size=4), st.integers(0, 4))
def test_ids_of_content_are_made_row_by_row(texts: list[str], start: int) -> None:
    rows = pa.array(texts, pa.large_string()).slice(start)
    assert content_ids("a", rows).to_pylist() == [content_id("a", text) for text in texts[start:]]


def test_an_id_that_occurs_twice_is_an_error_that_names_it(documents: Make) -> None:
    twice = {"1.jsonl": [{"text": "a", "id": 1}, {"text": "b", "id": "two"}], "2.jsonl": [{"text": "c", "id": "two"}]}
    with pytest.raises(DataError) as error:
        documents(twice, id="id")
    assert "source 'a': 1 ids occur more than once, such as 'two'" in str(error.value)
    assert "leave 'id' out of the recipe" in str(error.value)


def test_a_number_and_a_string_that_reads_alike_are_one_id(documents: Make) -> None:
    with pytest.raises(DataError, match="such as '7'"):
        documents({"1.jsonl": [{"text": "a", "id": 7}, {"text": "b", "id": "7"}]}, id="id")


@pytest.mark.parametrize("group_bytes", [1, 16_000_000], ids=["a task per file", "one task"])
def test_copies_without_ids_are_numbered_in_order_of_the_files(
    documents: Make, monkeypatch: pytest.MonkeyPatch, group_bytes: int
) -> None:
    monkeypatch.setattr(raw, "GROUP_BYTES", group_bytes)
    same, other = {"text": "same"}, {"text": "other"}
    built = documents({"1.jsonl": [same, other, {**same, "n": 2}], "2.jsonl": [{**same, "n": 3}, {"text": "new"}]})
    one, two = content_id("a", "same"), content_id("a", "other")
    assert [(row["id"], row["meta"]) for row in built.rows("documents", "a")] == [
        (one, "{}"),
        (two, "{}"),
        (f"{one}.2", '{"n":2}'),
        (f"{one}.3", '{"n":3}'),
        (content_id("a", "new"), "{}"),
    ]


def test_equal_documents_of_two_sources_keep_ids_of_their_own(
    tmp_path: Path, write_jsonl: Make, recipe: Make, build: Make
) -> None:
    for source in "ab":
        write_jsonl(tmp_path / "raw" / source / "x.jsonl", [{"text": "same"}])
    built = build(recipe(), tmp_path / "raw", tmp_path / "store", until="documents")
    assert built.ids("documents", "a") == {content_id("a", "same")}
    assert built.ids("documents", "b") == {content_id("b", "same")}


@pytest.mark.parametrize("memory_bytes", [3_000, 600_000_000], ids=["many partitions", "one partition"])
def test_many_copies_are_numbered_as_if_all_were_in_memory(
    tmp_path: Path,
    write_jsonl: Make,
    recipe: Make,
    build: Make,
    monkeypatch: pytest.MonkeyPatch,
    memory_bytes: int,
) -> None:
    monkeypatch.setattr(raw, "GROUP_BYTES", 1)
    rng = random.Random(0)
    texts = [[f"text {rng.randrange(150)}" for _ in range(100)] for _ in range(4)]
    for number, found in enumerate(texts):
        write_jsonl(tmp_path / "raw" / "a" / f"{number}.jsonl", [{"text": text} for text in found])
    made = recipe(sources={"a": {"files": "a/*"}})
    built = build(made, tmp_path / "raw", tmp_path / "store", Serial(memory_bytes), until="documents")
    seen: Counter[str] = Counter()
    expected = []
    for text in itertools.chain(*texts):
        seen[text] += 1
        expected.append(content_id("a", text) + (f".{seen[text]}" if seen[text] > 1 else ""))
    assert [row["id"] for row in built.rows("documents", "a")] == expected
