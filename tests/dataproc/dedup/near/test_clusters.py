"""Which documents a build finds to be near-duplicates."""

from __future__ import annotations

import itertools
import shutil
from collections import defaultdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from tests.dataproc.dedup.conftest import edited
from tests.dataproc.dedup.near.conftest import THRESHOLD, Make, Texts, clusters, components, jaccard, kept

from dataproc.dedup import members, ranges, sign, survivors
from dataproc.dedup import shingles as shingles_
from dataproc.dedup.band_keys import band_keys
from dataproc.dedup.bands import Bands
from dataproc.dedup.cleaning import clean_all
from dataproc.dedup.group import BYTES_PER_KEY
from dataproc.dedup.minhash import signatures
from dataproc.dedup.shingles import Shingling, shingle_hashes
from dataproc.documents import DOCUMENTS, ShardWriter
from dataproc.workers import Workers


def test_a_chain_leaves_one_document_though_its_ends_are_not_alike(deduped: Make, chain: list[str]) -> None:
    built = deduped({f"a/{i}": text for i, text in enumerate(chain)}, keep=["id"])
    assert kept(built) == {"a/0"}
    by_id = {row["id"]: row["jaccard"] for row in built.rows("ledger", "global")}
    assert by_id == {f"a/{i}": jaccard(chain[i], chain[0]) for i in (1, 2)}
    assert by_id["a/2"] < THRESHOLD


def test_global_dedup_removes_what_local_keeps(deduped: Make, chain: list[str]) -> None:
    texts = {"a/1": chain[0], "a/2": chain[0] + " and more", "b/1": chain[0], "b/2": chain[1]}
    assert kept(deduped(texts, scope="global")) == {"a/2"}
    assert kept(deduped(texts, scope="local")) == {"a/2", "b/1"}
    assert kept(deduped(texts, scope="none")) == set(texts)


def test_the_scopes_share_documents_and_signatures(of_families: Make) -> None:
    builds = [of_families(scope=scope) for scope in ("global", "local")]
    for kind, name in itertools.product(("documents", "signatures"), "ab"):
        assert len({built.artifact(kind, name).uri for built in builds}) == 1


@pytest.mark.parametrize("unit", ["char", "word"])
def test_clusters_are_the_components_of_all_pairs_at_the_threshold(
    of_families: Make, families: Texts, unit: str
) -> None:
    expected = components(families, unit)
    assert len(expected) > 5
    assert clusters(of_families(unit=unit)) == expected


def test_local_clusters_are_the_components_within_a_source(of_families: Make, families: Texts) -> None:
    built = of_families(scope="local")
    for source in "ab":
        ours = {i: text for i, text in families.items() if i.startswith(source)}
        assert clusters(built, source) == components(ours)


def ledger(built: Any) -> list[dict[str, Any]]:
    """The rows in order of id, but for the places of the documents, which depend on how they were cut into shards."""
    rows = sorted(built.rows("ledger", "global"), key=lambda row: str(row["id"]))
    return [{key: value for key, value in row.items() if key not in ("shard", "row")} for row in rows]


def test_workers_and_partitions_do_not_change_the_result(
    of_families: Make, ray_workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = of_families()
    monkeypatch.setattr(ray_workers, "memory_bytes", 30 * BYTES_PER_KEY)
    monkeypatch.setattr(members, "COMPONENTS_PER_PARTITION", 3)
    monkeypatch.setattr(survivors, "CLUSTERS_PER_PARTITION", 2)
    cut = of_families(ray_workers, apart=True)
    assert clusters(cut) == clusters(whole)
    assert ledger(cut) == ledger(whole)


def test_many_small_shards_do_not_change_the_result(of_families: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = of_families()
    monkeypatch.setattr("dataproc.documents.SHARD_BYTES", 1)
    monkeypatch.setattr("dataproc.normalize.BATCH_BYTES", 1500)
    cut = of_families(apart=True)
    assert len(cut.artifact("documents", "a").manifest.shards) > 5
    assert clusters(cut) == clusters(whole)
    assert ledger(cut) == ledger(whole)
    assert kept(cut) == kept(whole)


NO_GATES = {"max_source_loss": 1, "min_precision": 0}


def left_in(built: Any) -> list[Path]:
    return list((built.store.root / ".drafts").glob("*.left"))


def test_a_ledger_takes_what_its_clusters_have_left_and_is_the_same_without(of_families: Make) -> None:
    """Clusters of an earlier process leave it, too; a disk that knows no hard links has nothing of it."""
    digests = []
    for lose in (False, True):
        first = of_families(apart=True, until="clusters")
        (left,) = left_in(first)
        if lose:
            shutil.rmtree(left)
        later = of_families(store=first.store.root, until="ledger")
        assert not left_in(later)
        digests.append(later.artifact("ledger", "global").manifest.digest)
    assert digests == [of_families().artifact("ledger", "global").manifest.digest] * 2


def test_documents_without_a_shingle_are_alike_in_a_ledger_of_nothing_verified(deduped: Make) -> None:
    built = deduped({"a/1": "short one", "a/2": "another"}, scope="local", verify="none", gates=NO_GATES)
    assert [row["jaccard"] for row in built.rows("ledger", "a")] == [0.0]


def test_texts_that_are_taken_part_by_part_change_nothing(of_families: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = of_families()
    monkeypatch.setattr(shingles_, "BATCH_BYTES", 50)
    monkeypatch.setattr(ranges, "PART_BYTES", 100)
    in_parts = of_families(apart=True)
    assert clusters(in_parts) == clusters(whole)
    assert ledger(in_parts) == ledger(whole)


def test_documents_without_a_shingle_are_duplicates_only_if_their_cleaned_texts_are_equal(deduped: Make) -> None:
    texts = {
        "a/1": "Twelve chars",
        "a/2": "twelve  chars!",
        "a/3": "twelve charz",
        "a/4": "...",
        "a/5": "?!",
        "a/6": "x",
    }
    built = deduped(texts)
    assert clusters(built) == {frozenset({"a/1", "a/2"}), frozenset({"a/4", "a/5"})}
    assert [(row["id"], row["jaccard"]) for row in built.rows("ledger", "global")] == [("a/1", 1.0), ("a/5", 1.0)]


def test_500_copies_leave_one(deduped: Make, words: Make) -> None:
    text, other = " ".join(words(1, 60)), " ".join(words(2, 60))
    texts = {f"{'ab'[i % 2]}/{i:03d}": text + "!" * (i % 3) for i in range(500)}
    built = deduped({**texts, "a/other": other})
    assert kept(built) == {"a/002", "a/other"}
    assert len(built.rows("ledger", "global")) == 499


def test_500_near_copies_leave_one(deduped: Make, words: Make) -> None:
    base = words(1, 80)
    texts = {f"a/{i:03d}": " ".join(edited(base, i, 1)) for i in range(500)}
    built = deduped(texts)
    assert components({i: texts[i] for i in list(texts)[:60]}) == {frozenset(list(texts)[:60])}
    assert len(kept(built)) == 1


def test_a_long_common_header_makes_no_duplicates(deduped: Make, words: Make) -> None:
    header = " ".join(words(0, 100))
    texts = {f"a/{i:03d}": f"{header} {' '.join(words(i + 1, 60))}" for i in range(200)}
    alike = [jaccard(a, b) for a, b in itertools.combinations(list(texts.values())[:20], 2)]
    assert 0.4 < min(alike) <= max(alike) < THRESHOLD
    built = deduped(texts)
    assert kept(built) == set(texts)
    assert built.rows("ledger", "global") == []


def test_sources_of_which_nothing_is_left_have_nothing_to_deduplicate(
    tmp_path: Path, write_jsonl: Make, recipe: Make, build: Make
) -> None:
    for source in "ab":
        write_jsonl(tmp_path / "raw" / source / "x.jsonl", [{"text": "short"}])
    none = recipe(clean={"min_chars": 200}, dedup={"scope": "global"}, holdout={"fraction": 0.5})
    built = build(none, tmp_path / "raw", tmp_path / "store", until="deduped")
    assert kept(built) == clusters(built) == set()
    assert built.rows("ledger", "global") == built.rows("heldout", "all") == []


def test_a_shard_of_documents_has_one_of_signatures_however_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = ShardWriter(tmp_path, "documents", DOCUMENTS)
    for i in range(3):
        documents.write(pa.table({"id": [f"a/{i}"], "text": ["text"], "source": ["a"], "meta": ["{}"]}))
    (shard,) = documents.close()
    monkeypatch.setattr("dataproc.documents.SHARD_BYTES", 1)
    signed = sign.sign(tmp_path / shard.path, shingling=Shingling("char", 13), permutations=16, draft=tmp_path)
    assert [made.rows for made in signed.shards] == [3, 3]


def test_without_verification_a_shared_band_is_enough(of_families: Make, families: Texts) -> None:
    built = of_families(verify="none", bands=(9, 13), gates={"max_source_loss": 1, "min_precision": 0})
    texts = pa.array(list(families.values()), pa.large_string())
    keys_NB = band_keys(signatures(shingle_hashes(clean_all(texts), Shingling("char", 13))), Bands(9, 13))
    holders: dict[int, list[str]] = defaultdict(list)
    for identifier, keys in zip(families, keys_NB.tolist(), strict=True):
        for key in keys:
            holders[key].append(identifier)
    links = {frozenset(pair) for ids in holders.values() for pair in itertools.combinations(ids, 2)}
    members = clusters(built)
    assert all(any(link <= cluster for cluster in members) for link in links)
    assert sum(len(cluster) - 1 for cluster in members) == len(families) - _components(families, links)


def _components(texts: Texts, links: set[frozenset[str]]) -> int:
    left = {frozenset([i]) for i in texts}
    for link in links:
        touched = {group for group in left if group & link}
        left = (left - touched) | {frozenset().union(*touched)}
    return len(left)
