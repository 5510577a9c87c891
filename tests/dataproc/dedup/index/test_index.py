"""An index says of new documents what a build over everything would, whatever the order of batches."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.dataproc.dedup.conftest import edited

from dataproc.dedup.index import batch, known
from dataproc.dedup.index.add import add, open_or_make
from dataproc.dedup.index.questions import nearest
from dataproc.dedup.index.show import clusters, overview
from dataproc.dedup.index.state import Index, open_index
from dataproc.workers import Serial, Workers
from manifest.errors import CorruptArtifact, DataError, InputError, NotAnArtifact, RecipeError, WrongArtifact
from manifest.record import Artifact

Make = Callable[..., Any]
Texts = Mapping[str, str]
Jaccard = Callable[[str, str], float]
THRESHOLD = 0.8


@pytest.fixture(scope="module")
def one_shot(
    tmp_path_factory: pytest.TempPathFactory, corpus: Texts, write_raw: Make, near_recipe: Make, build: Make
) -> Any:
    """A build over the whole corpus."""
    root = tmp_path_factory.mktemp("one-shot")
    return build(near_recipe(), write_raw(corpus, root / "raw"), root / "store", until="ledger")


def ledger(index: Index) -> set[tuple[str, ...]]:
    """(id, cluster, survivor, rule) of all that do not survive."""
    removed = clusters(index).filter(pl.col("rule") != "")
    return set(removed.select("id", "cluster", "survivor", "rule").iter_rows())


def ledger_of(built: Any) -> set[tuple[str, ...]]:
    return {tuple(row[key] for key in ("id", "cluster", "survivor", "rule")) for row in built.rows("ledger", "global")}


def near_pairs(texts: Texts, jaccard: Jaccard) -> list[tuple[str, str, float]]:
    """All pairs of ids at the threshold, both ways."""
    indices = ((a, b, jaccard(texts[a], texts[b])) for a in texts for b in texts if a != b)
    return [(a, b, index) for a, b, index in indices if index >= THRESHOLD]


# ---- adding


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32), batches=st.integers(1, 6))
def test_batches_in_any_order_end_where_one_build_does(
    shelf: Make, corpus: dict[str, str], one_shot: Any, seed: int, batches: int
) -> None:
    rng = random.Random(seed)
    ids = list(corpus)
    rng.shuffle(ids)
    cuts = sorted(rng.choices(range(len(ids)), k=batches - 1))
    filled = shelf()
    for first, last in zip([0, *cuts], [*cuts, len(ids)], strict=True):
        if first < last:
            filled.add({identifier: corpus[identifier] for identifier in ids[first:last]})
    assert ledger(filled.index) == ledger_of(one_shot)
    columns = ("id", "cluster", "source", "characters")
    members = set(clusters(filled.index).select(columns).iter_rows())
    assert members == {tuple(row[column] for column in columns) for row in one_shot.rows("clusters", "global")}


def test_a_new_document_is_told_the_old_one_that_is_most_like_it(
    shelf: Make, corpus: dict[str, str], jaccard: Jaccard
) -> None:
    ids = sorted(corpus)
    random.Random(1).shuffle(ids)
    old, new = ids[:40], ids[40:]
    filled = shelf()
    filled.add({identifier: corpus[identifier] for identifier in old})
    rows = filled.report({identifier: corpus[identifier] for identifier in new})
    expected: dict[str, tuple[float, str]] = {}
    for a, b, index in near_pairs(corpus, jaccard):
        if a in new and b in old:
            expected[a] = min(expected.get(a, (0.0, "")), (-index, b))
    assert len(expected) > 10
    told = {row["id"]: (-row["jaccard"], row["match"]) for row in rows if row["match"]}
    assert told == expected
    assert all(row["match_source"] == row["match"][0] for row in rows if row["match"])


def test_the_report_of_a_batch_names_who_comes_and_goes(shelf: Make, words: Make) -> None:
    text = " ".join(words(1, 60))
    filled = shelf()
    assert filled.report({"b/1": text, "b/alone": " ".join(words(2, 60))}) == []
    found = filled.report({"b/2": text + " more", "b/3": text, "b/4": " ".join(words(3, 60))})
    assert [(r["id"], r["status"], r["match"], r["survivor"], r["rule"]) for r in found] == [
        ("b/1", "demoted", "", "b/2", "longest"),
        ("b/2", "kept", "b/1", "b/2", ""),
        ("b/3", "removed", "b/1", "b/2", "longest"),
    ]
    (first, second) = filled.report({"a/5": text})
    assert (first["id"], first["status"], first["survivor"], first["rule"]) == ("b/2", "demoted", "a/5", "source_order")
    assert (second["id"], second["status"], second["match"], second["jaccard"]) == ("a/5", "kept", "b/1", 1.0)


def test_a_document_that_joins_two_clusters_demotes_one_survivor(shelf: Make, words: Make, jaccard: Jaccard) -> None:
    middle = words(1, 60)
    left, right = " ".join(edited(middle, 2, 2)), " ".join(edited(middle, 9, 2))
    assert jaccard(left, right) < THRESHOLD <= jaccard(left, " ".join(middle))
    filled = shelf(keep=["id"])
    filled.add({"a/1": left, "a/2": right})
    assert overview(filled.index)["survivors"] == 2
    rows = filled.report({"a/3": " ".join(middle)})
    assert [(row["id"], row["status"], row["survivor"]) for row in rows] == [
        ("a/2", "demoted", "a/1"),
        ("a/3", "removed", "a/1"),
    ]


def test_near_duplicates_within_a_batch_are_reported_without_a_match(shelf: Make, words: Make) -> None:
    text = " ".join(words(1, 60))
    rows = shelf().report({"a/1": text, "a/2": text + " more"})
    assert [(row["id"], row["status"], row["match"], row["jaccard"] == row["jaccard"]) for row in rows] == [
        ("a/2", "kept", "", False),
        ("a/1", "removed", "", False),
    ]


def test_ids_that_are_there_are_ignored_with_the_same_text_and_refused_with_another(shelf: Make, words: Make) -> None:
    texts = {f"a/{i}": " ".join(words(i, 60)) for i in range(4)}
    filled = shelf()
    filled.add(texts)
    manifest = filled.add({**texts, "a/new": "something else"}).manifest
    assert isinstance(manifest, Artifact)
    assert (manifest.summary["documents"], manifest.summary["ignored"]) == (1, 4)
    with pytest.raises(DataError, match=r"ids are in .* with another text, such as 'a/2'"):
        filled.add({"a/2": "another text", "a/5": "a new one"})
    assert overview(filled.index)["documents"] == 5


def test_artifacts_that_share_ids_are_added_together(shelf: Make, documents: Make, words: Make) -> None:
    texts = {f"a/{i}": " ".join(words(i, 60)) for i in range(4)}
    filled = shelf()
    two = [*documents(texts), *documents({"a/3": texts["a/3"], "a/4": "more"})]
    manifest = add(filled.index, two, workers=Serial()).manifest
    assert isinstance(manifest, Artifact)
    assert (manifest.summary["documents"], manifest.summary["ignored"]) == (5, 1)
    with pytest.raises(DataError, match="come twice in what is added, with different texts, such as 'a/8'"):
        add(filled.index, [*documents({"a/8": "x y z"}), *documents({"a/8": "u v w"})], workers=Serial())


def test_the_same_artifacts_again_are_the_same_batch(shelf: Make, corpus: Texts) -> None:
    filled = shelf()
    first = filled.add(corpus)
    assert filled.add(corpus).uri == first.uri
    assert len(filled.index.entries) == 2


def test_an_index_may_be_empty_and_so_may_a_batch(shelf: Make, corpus: dict[str, str], tmp_path: Path) -> None:
    filled = shelf()
    assert (overview(filled.index)["documents"], clusters(filled.index).height) == (0, 0)
    assert nearest(filled.index, {"x": corpus["a/short-1"]})["match"].to_list() == [None]
    assert filled.probe({"a/1": corpus["a/short-1"]}, tmp_path / "p") == []
    filled.add(corpus)
    before = ledger(filled.index)
    assert filled.report({"a/short-1": corpus["a/short-1"]}) == []
    assert filled.report({"a/new": "a text of its own"}) == []
    assert (len(filled.index.entries), ledger(filled.index)) == (4, before)


def test_signed_documents_are_added_as_they_are(
    shelf: Make, corpus: Texts, one_shot: Any, build: Make, near_recipe: Make
) -> None:
    filled = shelf()
    add(filled.index, [one_shot.artifact("signatures", name) for name in "ab"], workers=Serial())
    assert ledger(filled.index) == ledger_of(one_shot)
    assert filled.add(corpus).uri == open_index(filled.root).entries[1]


def test_an_index_needs_nothing_of_what_was_added(
    shelf: Make, tmp_path: Path, corpus: Texts, write_raw: Make, near_recipe: Make, build: Make
) -> None:
    store = tmp_path / "store"
    published = build(near_recipe(), write_raw(corpus, tmp_path / "raw"), store, until="documents").published
    filled = shelf()
    add(filled.index, published, workers=Serial())
    shutil.rmtree(store)
    rows = filled.probe({"a/new": corpus["b/short-4"], "b/new": corpus["a/short-1"]}, tmp_path / "p")
    assert {row["id"]: row["match"] for row in rows if row["match"]} == {"a/new": "b/short-4", "b/new": "a/short-1"}


def test_cutting_it_up_changes_nothing(
    shelf: Make, corpus: dict[str, str], one_shot: Any, ray_workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    half = sorted(corpus)[::2]
    whole = shelf()
    monkeypatch.setattr(batch, "KEYS_PER_TABLE", 300)
    monkeypatch.setattr("dataproc.dedup.near.QUERIES", 3)
    monkeypatch.setattr("dataproc.dedup.near.SETS", 2)
    cut = shelf(workers=ray_workers)
    for filled in (whole, cut):
        filled.add({identifier: corpus[identifier] for identifier in half})
        filled.add({identifier: text for identifier, text in corpus.items() if identifier not in half})
    assert len(list(cut.root.glob("batches/*/bands-*.table"))) > 4
    assert ledger(cut.index) == ledger(whole.index) == ledger_of(one_shot)


def test_a_hot_bucket_is_compared_in_part_and_counted(
    shelf: Make, words: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = words(1, 80)
    filled = shelf()
    filled.add({f"a/{i:03d}": " ".join(edited(base, i, 1)) for i in range(12)})
    monkeypatch.setattr(known, "BUCKET_CAP", 3)
    manifest = filled.add({"a/new": " ".join(edited(base, 99, 1))}).manifest
    assert isinstance(manifest, Artifact)
    assert manifest.summary["capped_buckets"] > 0


# ---- asking


def test_a_probe_reports_what_adding_would_and_changes_nothing(
    shelf: Make, corpus: dict[str, str], tmp_path: Path
) -> None:
    ids = sorted(corpus)
    filled = shelf()
    filled.add({identifier: corpus[identifier] for identifier in ids[::2]})
    before = {path: path.stat().st_mtime_ns for path in filled.root.rglob("*")}
    new = {identifier: corpus[identifier] for identifier in ids[1::2]}
    asked = filled.probe(new, tmp_path / "probe")
    assert {path: path.stat().st_mtime_ns for path in filled.root.rglob("*")} == before
    assert [repr(row) for row in filled.report(new)] == [repr(row) for row in asked]


def test_a_text_is_told_the_nearest_document(shelf: Make, words: Make, jaccard: Jaccard) -> None:
    base = words(1, 60)
    once = edited(base, 1, 1)
    old = {"b/1": " ".join(once), "b/2": " ".join(edited(once, 2, 1)), "a/3": " ".join(edited(once, 3, 1))}
    filled = shelf()
    filled.add(old)
    text = " ".join(base)
    near, exact, far = nearest(filled.index, {"near": text, "exact": old["b/2"].upper(), "far": "no"}).to_dicts()
    assert all(jaccard(old["b/1"], old[other]) >= THRESHOLD for other in ("b/2", "a/3"))
    assert jaccard(text, old["b/1"]) > max(jaccard(text, old[other]) for other in ("b/2", "a/3"))
    assert (near["match"], near["jaccard"], near["survivor"]) == ("b/1", jaccard(old["b/1"], text), "a/3")
    assert (exact["match"], exact["jaccard"]) == ("b/2", 1.0)
    assert (far["id"], far["match"], far["jaccard"]) == ("far", None, None)


def test_an_overview_counts_what_a_build_counts(shelf: Make, corpus: dict[str, str], one_shot: Any) -> None:
    filled = shelf()
    for source in "ab":
        filled.add({identifier: text for identifier, text in corpus.items() if identifier[0] == source})
    shown = overview(filled.index)
    summary = one_shot.artifact("clusters", "global").manifest.summary
    for key in ("documents", "clusters", "clustered_documents", "cluster_sizes"):
        assert shown[key] == summary[key]
    assert shown["survivors"] == len(corpus) - one_shot.artifact("ledger", "global").manifest.summary["removed"]
    assert shown["sources"] == {s: sum(identifier[0] == s for identifier in corpus) for s in "ab"}
    assert shown["bytes"] == sum(f.stat().st_size for f in filled.root.glob("batches/*/*") if f.name != "manifest.json")


# ---- what is refused


@pytest.mark.parametrize(
    ("dedup", "said"),
    [
        ({"threshold": 0.7}, r"threshold 0.7 \(the index: 0.8\), bands"),
        ({"ngram": 9}, r"ngram 9 \(the index: 13\)"),
        ({"keep": ["id"]}, r"keep \['id'\]"),
        ({"scope": "local"}, "an index is global and exact"),
    ],
)
def test_another_recipe_is_refused(shelf: Make, near_recipe: Make, dedup: dict[str, Any], said: str) -> None:
    filled = shelf()
    assert filled.index.documents == 0
    with pytest.raises(RecipeError, match=said):
        open_or_make(filled.root, near_recipe(dedup=dedup), Serial())


def test_signatures_of_another_kind_are_refused(
    shelf: Make, tmp_path: Path, corpus: Texts, write_raw: Make, near_recipe: Make, build: Make
) -> None:
    other = near_recipe(dedup={"permutations": 64, "ngram": 9})
    signed = build(other, write_raw(corpus, tmp_path / "raw"), tmp_path / "store", until="signatures").published
    with pytest.raises(
        WrongArtifact, match=r"was signed with ngram 9 \(the index: 13\), permutations 64 \(the index: 128\)"
    ):
        add(shelf().index, signed, workers=Serial())


def test_what_an_index_does_not_know_is_refused(shelf: Make, documents: Make, one_shot: Any, tmp_path: Path) -> None:
    filled = shelf()
    with pytest.raises(RecipeError, match="is of source 'c'; the index knows a, b"):
        filled.add({"c/1": "some text"})
    with pytest.raises(WrongArtifact, match="is a ledger; an index takes documents, deduped or signatures"):
        add(filled.index, one_shot.published, workers=Serial())
    with pytest.raises(RecipeError, match="holds no index yet; give --recipe"):
        open_or_make(tmp_path / "none", None, Serial())
    with pytest.raises(NotAnArtifact, match="holds no index"):
        open_index(tmp_path / "none")
    with pytest.raises(InputError, match="lies on a local or shared file system"):
        open_index("s3://bucket/index")


def test_a_lost_entry_is_noticed(shelf: Make, words: Make) -> None:
    filled = shelf()
    for i in range(3):
        filled.add({f"a/{i}": " ".join(words(i, 30))})
    shutil.rmtree(filled.index.entries[2])
    with pytest.raises(CorruptArtifact, match="entry 2 of the index is missing or was replaced"):
        open_index(filled.root)


def test_a_damaged_text_is_noticed(shelf: Make, words: Make, tmp_path: Path) -> None:
    filled = shelf()
    text = " ".join(words(1, 60))
    (shard,) = Path(filled.add({"a/1": text}).uri).glob("texts-*.bin")
    data = bytearray(shard.read_bytes())
    data[40] ^= 1
    shard.write_bytes(data)
    with pytest.raises(CorruptArtifact, match=r"texts-00000.bin cannot be read"):
        filled.probe({"a/2": text + " and more"}, tmp_path / "p")
