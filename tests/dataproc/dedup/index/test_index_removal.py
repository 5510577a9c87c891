"""What is removed from an index is as if it had never been added, and nothing else is."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.dataproc.dedup.conftest import edited

from dataproc.dedup.index.known import documents_of, members_of
from dataproc.dedup.index.questions import nearest
from dataproc.dedup.index.remove import plan, remove
from dataproc.dedup.index.show import clusters, overview
from dataproc.dedup.index.state import Index
from dataproc.dedup.stones import Tombstone
from dataproc.documents import rows_of
from dataproc.stage import shard_files
from manifest.artifact import Opened
from manifest.errors import DataError
from manifest.record import Artifact

Make = Callable[..., Any]
Texts = Mapping[str, str]
Jaccard = Callable[[str, str], float]
THRESHOLD = 0.8


def ids(*documents: str) -> list[Tombstone]:
    return [Tombstone(document=identifier) for identifier in documents]


def report(removal: Opened) -> list[dict[str, Any]]:
    return [row for shard in shard_files(removal, "report") for row in rows_of(shard).to_pylist()]


def state(index: Index) -> tuple[int, set[tuple[str, ...]]]:
    """How many documents live, and (id, cluster, survivor, rule) of all that are in a cluster."""
    found = clusters(index).select("id", "cluster", "survivor", "rule")
    return overview(index)["documents"], set(found.iter_rows())


def without(corpus: Texts, dead: set[str]) -> dict[str, str]:
    return {identifier: text for identifier, text in corpus.items() if identifier not in dead}


@pytest.fixture
def chain(words: Make, jaccard: Jaccard) -> dict[str, str]:
    """a/1 and a/3 are near a/2, but not near each other; so for a/4 and a/5."""
    texts = {}
    for first, seed in ((1, 1), (4, 7)):
        middle = words(seed, 60)
        found = [" ".join(edited(middle, 2, 2)), " ".join(middle), " ".join(edited(middle, 9, 2))]
        assert jaccard(found[0], found[2]) < THRESHOLD <= min(jaccard(found[0], found[1]), jaccard(found[1], found[2]))
        texts |= {f"a/{first + place}": text for place, text in enumerate(found)}
    return texts


@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32))
def test_additions_and_removals_in_any_order_end_where_the_rest_would_have(
    shelf: Make, corpus: dict[str, str], jaccard: Jaccard, seed: int
) -> None:
    rng = random.Random(seed)
    waiting, there = sorted(corpus), set()
    rng.shuffle(waiting)
    removed: set[str] = set()
    stones: list[str] = []
    filled = shelf()

    def fallen() -> set[str]:
        return {i for i, text in corpus.items() if any(jaccard(text, stone) >= THRESHOLD for stone in stones)}

    while waiting:
        some, waiting = waiting[:25], waiting[25:]
        filled.add({identifier: corpus[identifier] for identifier in some})
        there |= set(some)
        text = corpus[rng.choice(sorted(there))]
        named = rng.sample(sorted(there - fallen()), 3)
        remove(filled.index, [*ids(*named), Tombstone(text=text)])
        removed |= set(named)
        stones.append(text)
    never = shelf()
    never.add(without(corpus, removed | fallen()))
    assert state(filled.index) == state(never.index)


# ---- by id


def test_a_removed_middle_splits_its_cluster(shelf: Make, chain: dict[str, str]) -> None:
    filled = shelf(keep=["id"])
    filled.add(chain)
    rows = report(remove(filled.index, ids("a/2")))
    assert [(row["id"], row["status"], row["cluster"], row["survivor"]) for row in rows] == [
        ("a/3", "promoted", "a/3", "a/1"),
        ("a/2", "removed", "a/1", "a/1"),
        ("a/1", "split", "a/1", "a/1"),
        ("a/3", "split", "a/1", "a/1"),
    ]
    shown = overview(filled.index)
    assert (shown["documents"], shown["removed"], shown["clusters"], shown["survivors"]) == (5, 1, 1, 3)


def test_only_the_clusters_of_what_is_removed_are_linked_again(shelf: Make, chain: dict[str, str]) -> None:
    filled = shelf(keep=["id"])
    filled.add({**chain, "b/7": chain["a/1"] + " and more", "b/8": chain["a/4"] + " and more"})
    edges = plan(filled.index, ids("a/2")).edges
    texts = np.union1d(edges.a, edges.b)
    named = documents_of(filled.index, members_of(filled.index, texts)[1])["id"]
    assert set(named) == {"a/1", "b/7"}


def test_a_removed_survivor_is_followed_by_the_next(shelf: Make, words: Make) -> None:
    text = " ".join(words(1, 60))
    filled = shelf()
    filled.add({"a/1": text, "b/1": text + " more", "b/2": text})
    rows = report(remove(filled.index, ids("a/1")))
    assert [(row["id"], row["status"], row["survivor"]) for row in rows] == [
        ("b/1", "promoted", "a/1"),
        ("a/1", "removed", "a/1"),
    ]


def test_a_copy_of_what_is_removed_stays_and_is_found(shelf: Make, words: Make) -> None:
    text = " ".join(words(1, 60))
    filled = shelf()
    filled.add({"a/1": text})
    filled.add({"b/2": text})
    remove(filled.index, ids("a/1"))
    found = nearest(filled.index, {"text": text})
    assert found.select("match", "survivor").rows() == [("b/2", "b/2")]


def test_a_text_that_comes_back_under_another_id_is_there_again(shelf: Make, chain: dict[str, str]) -> None:
    filled = shelf(keep=["id"])
    filled.add(chain)
    remove(filled.index, ids("a/2"))
    filled.add({"a/9": chain["a/2"]})
    never = shelf(keep=["id"])
    never.add({**without(chain, {"a/2"}), "a/9": chain["a/2"]})
    assert state(filled.index) == state(never.index)


def test_a_removed_id_stays_removed(shelf: Make, chain: dict[str, str]) -> None:
    filled = shelf()
    filled.add(chain)
    remove(filled.index, ids("a/2"))
    batch = filled.add({"a/2": chain["a/2"], "a/7": "another text"}).manifest
    assert isinstance(batch, Artifact)
    assert (batch.summary["documents"], batch.summary["ignored"]) == (1, 1)
    with pytest.raises(DataError, match="with another text, such as 'a/2'"):
        filled.add({"a/2": "a third text"})


def test_ids_that_are_not_there_are_refused(shelf: Make, chain: dict[str, str]) -> None:
    filled = shelf()
    filled.add(chain)
    with pytest.raises(DataError, match=r"1 ids are not in .*, such as 'a/99'; an id begins with its source"):
        remove(filled.index, ids("a/1", "a/99"))
    assert overview(filled.index)["documents"] == 6


# ---- by text


def test_a_text_removes_what_is_near_to_it_and_not_what_is_near_to_that(shelf: Make, chain: dict[str, str]) -> None:
    filled = shelf()
    filled.add(chain)
    planned = plan(filled.index, [Tombstone(text=chain["a/1"])])
    gone = planned.report.filter(pl.col("status") == "removed")
    assert set(gone["id"]) == {"a/1", "a/2"}
    assert gone["tombstone"].to_list() == ["text 1", "text 1"]


def test_a_text_holds_for_what_is_added_later(shelf: Make, chain: dict[str, str], jaccard: Jaccard) -> None:
    filled = shelf()
    filled.add({"a/4": chain["a/4"]})
    assert report(remove(filled.index, [Tombstone(text=chain["a/2"])])) == []
    manifest = filled.add(without(chain, {"a/4"})).manifest
    assert isinstance(manifest, Artifact)
    near = [i for i in chain if jaccard(chain[i], chain["a/2"]) >= THRESHOLD]
    assert near == ["a/1", "a/2", "a/3"]
    assert (manifest.summary["documents"], manifest.summary["tombstoned"]) == (2, 3)


def test_a_text_without_a_shingle_removes_its_equals(shelf: Make) -> None:
    filled = shelf()
    filled.add({"a/1": "Short.", "a/2": "short", "a/3": "shirt"})
    remove(filled.index, [Tombstone(text="SHORT!")])
    assert overview(filled.index)["documents"] == 1


def test_the_same_tombstones_again_are_the_same_entry(shelf: Make, chain: dict[str, str]) -> None:
    filled = shelf()
    filled.add(chain)
    stones = [*ids("a/2"), Tombstone(text=chain["a/4"])]
    first = remove(filled.index, stones)
    assert remove(filled.index, stones).uri == first.uri
    assert remove(filled.index, stones[:1]).uri == first.uri
    assert remove(filled.index, [*stones, *ids("a/3")]).uri != first.uri
