"""Near-duplicates from raw files to the ledger, against brute force over Python sets.

Documents are random words with some of them exchanged, so that a few edits lie on either side of the threshold.
"""

from __future__ import annotations

import itertools
import random
import string
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from dataproc.dedup import links, members, ranges, sign, survivors
from dataproc.dedup import shingles as shingles_
from dataproc.dedup.bands import Bands, band_keys
from dataproc.dedup.cleaning import clean_all
from dataproc.dedup.group import BYTES_PER_KEY
from dataproc.dedup.minhash import signatures
from dataproc.dedup.shingles import Shingling, shingle_hashes
from dataproc.documents import DOCUMENTS, ShardWriter
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


def edited(words: list[str], seed: int, edits: int) -> list[str]:
    """The same words, `edits` of them exchanged."""
    rng = random.Random(seed)
    changed = list(words)
    for place in rng.sample(range(len(words)), edits):
        changed[place] = "".join(rng.choices(string.ascii_lowercase, k=8))
    return changed


@pytest.fixture(scope="module")
def raw(write_jsonl: Make) -> Callable[[Texts, Path], Path]:
    """Texts by id (source/name) → raw files, two for each source."""

    def write(texts: Texts, root: Path) -> Path:
        records: dict[str, list[dict[str, str]]] = defaultdict(list)
        for identifier, text in texts.items():
            source, _, name = identifier.partition("/")
            records[source].append({"id": name, "text": text})
        for source, rows in records.items():
            write_jsonl(root / source / "1.jsonl", rows[::2])
            write_jsonl(root / source / "2.jsonl", rows[1::2])
        return root

    return write


def near(recipe: Make, order: Iterable[str], dedup: dict[str, Any]) -> Any:
    """A recipe over the sources in `order` that does nothing but deduplicate."""
    sources = {name: {"files": f"{name}/*", "id": "id"} for name in order}
    return recipe(sources=sources, dedup={"scope": "global", "gates": {"max_source_loss": 1}, **dedup})


@pytest.fixture
def deduped(tmp_path: Path, raw: Callable[[Texts, Path], Path], recipe: Make, build: Make) -> Make:
    """Texts → a build up to their deduplication."""

    def run(texts: Texts, *, order: Iterable[str] = (), **dedup: Any) -> Any:
        names = list(order) or sorted({i.partition("/")[0] for i in texts})
        return build(near(recipe, names, dedup), raw(texts, tmp_path / "raw"), tmp_path / "store", until="deduped")

    return run


@pytest.fixture(scope="module")
def of_families(
    tmp_path_factory: pytest.TempPathFactory,
    raw: Callable[[Texts, Path], Path],
    families: Texts,
    recipe: Make,
    build: Make,
) -> Make:
    """A build of `families`. All go into one store, so that they share what they can; `apart`: a store of its own."""
    root = raw(families, tmp_path_factory.mktemp("raw"))
    shared = tmp_path_factory.mktemp("store")

    def run(workers: Workers | None = None, *, apart: bool = False, **dedup: Any) -> Any:
        store = tmp_path_factory.mktemp("apart") if apart else shared
        return build(near(recipe, "ab", dedup), root, store, workers, until="deduped")

    return run


def kept(built: Any) -> set[str]:
    return {row["id"] for item in built.published for row in built.rows("deduped", item.manifest.name)}


def clusters(built: Any, group: str = "global") -> set[frozenset[str]]:
    members: dict[str, set[str]] = defaultdict(set)
    for row in built.rows("clusters", group):
        members[row["cluster"]].add(row["id"])
    assert all(name == min(ids) for name, ids in members.items())
    return {frozenset(ids) for ids in members.values()}


@pytest.fixture(scope="module")
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


# ---- chains and scopes


@pytest.fixture
def chain(words: Make) -> list[str]:
    first = words(1, 60)
    second = edited(first, 2, 2)
    texts = [" ".join(w) for w in (first, second, edited(second, 9, 2))]
    assert jaccard(texts[0], texts[1]) >= THRESHOLD <= jaccard(texts[1], texts[2])
    assert jaccard(texts[0], texts[2]) < THRESHOLD
    return texts


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


# ---- who survives


@pytest.mark.parametrize(
    ("keys", "survivor", "rules"),
    [
        (["source_order", "longest", "id"], "b/0", {"a/1": "source_order", "a/2": "source_order", "b/1": "longest"}),
        (["longest", "id"], "a/2", {"a/1": "longest", "b/0": "longest", "b/1": "longest"}),
        (["id"], "a/1", {"a/2": "id", "b/0": "id", "b/1": "id"}),
        (["longest", "source_order", "id"], "a/2", {"a/1": "longest", "b/0": "longest", "b/1": "longest"}),
    ],
)
def test_the_first_key_that_differs_decides(
    deduped: Make, words: Make, keys: list[str], survivor: str, rules: dict[str, str]
) -> None:
    text = " ".join(words(3, 60))
    texts = {"a/1": text, "a/2": text + " two more", "b/0": text + " more", "b/1": text}
    built = deduped(texts, order=["b", "a"], keep=keys)
    rows = built.rows("ledger", "global")
    assert kept(built) == {survivor}
    assert {row["id"]: row["rule"] for row in rows} == rules
    assert {(row["survivor"], row["survivor_source"], row["cluster"]) for row in rows} == {
        (survivor, survivor[0], "a/1")
    }


def test_between_equal_documents_the_id_decides(deduped: Make, words: Make) -> None:
    text = " ".join(words(3, 60))
    built = deduped({f"a/{i}": text for i in ("10", "9", "2")})
    assert kept(built) == {"a/10"}
    assert [(row["id"], row["rule"], row["jaccard"]) for row in built.rows("ledger", "global")] == [
        ("a/2", "id", 1.0),
        ("a/9", "id", 1.0),
    ]


# ---- brute force


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


def test_the_ledger_tells_the_truth_about_every_removal(of_families: Make, families: Texts) -> None:
    built = of_families()
    rows = built.rows("ledger", "global")
    survivors = {row["survivor"] for row in rows}
    removed = {row["id"] for row in rows}
    assert len(removed) == len(rows)
    assert not removed & survivors
    assert kept(built) == set(families) - removed
    assert survivors <= kept(built)
    for row in rows:
        assert row["jaccard"] == jaccard(families[row["id"]], families[row["survivor"]])
        assert row["source"] == row["id"][0]
        assert row["survivor_source"] == row["survivor"][0]
    by_cluster = {frozenset(group): min(group, key=lambda i: (i[0], -len(families[i]), i)) for group in clusters(built)}
    assert {row["id"]: row["survivor"] for row in rows} == {
        i: first for group, first in by_cluster.items() for i in group if i != first
    }


def test_the_summary_counts_removals_within_and_across_sources(of_families: Make) -> None:
    built = of_families()
    counted = Counter((r["source"], r["source"] == r["survivor_source"]) for r in built.rows("ledger", "global"))
    summary = built.artifact("ledger", "global").manifest.summary
    assert summary["removed"] == sum(counted.values())
    assert summary["sources"] == {s: {"within": counted[s, True], "across": counted[s, False]} for s in "ab"}


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


def test_texts_that_are_taken_part_by_part_change_nothing(of_families: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = of_families()
    monkeypatch.setattr(shingles_, "BATCH_BYTES", 50)
    monkeypatch.setattr(ranges, "PART_BYTES", 100)
    in_parts = of_families(apart=True)
    assert clusters(in_parts) == clusters(whole)
    assert ledger(in_parts) == ledger(whole)


# ---- hard corpora


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


def test_a_capped_bucket_is_reported(deduped: Make, words: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links, "BUCKET_CAP", 3)
    base = words(1, 80)
    built = deduped({f"a/{i:03d}": " ".join(edited(base, i, 1)) for i in range(12)})
    assert built.artifact("clusters", "global").manifest.summary["capped_buckets"] > 0


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


def test_a_number_in_the_metadata_may_decide_who_survives(
    tmp_path: Path, write_jsonl: Make, recipe: Make, build: Make, words: Make
) -> None:
    text = " ".join(words(1, 60))
    scores = [0.5, 0.9, None, "high", 0.7]
    lines = [{"id": str(n), "text": text, "score": score} for n, score in enumerate(scores)]
    write_jsonl(tmp_path / "raw" / "a" / "x.jsonl", lines)

    def ledger_by(*keep: Any) -> dict[str, tuple[str, str]]:
        built = build(near(recipe, "a", {"keep": keep}), tmp_path / "raw", tmp_path / "store", until="deduped")
        return {row["id"]: (row["survivor"], row["rule"]) for row in built.rows("ledger", "global")}

    best = ledger_by({"highest": "score"}, "id")
    assert set(best.values()) == {("a/1", "highest score")}
    worst = ledger_by("source_order", {"lowest": "score"}, "id")
    assert set(worst.values()) == {("a/0", "lowest score")}
    assert set(ledger_by({"highest": "nothing"}, "id").values()) == {("a/0", "id")}


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


def near_pairs(texts: Texts) -> list[set[str]]:
    """The pairs of different texts at the threshold; each is sampled from both of its ends."""
    pairs = itertools.combinations(sorted(set(texts.values())), 2)
    return [{a, b} for a, b in pairs if jaccard(a, b) >= THRESHOLD]


def test_a_build_says_how_good_its_clusters_are(of_families: Make, families: Texts) -> None:
    summary = of_families().artifact("clusters", "global").manifest.summary
    pairs = near_pairs(families)
    assert summary["sampled"]["recall"] == {"good": 2 * len(pairs), "sampled": 2 * len(pairs), "share": 1.0}
    clustered = len({text for pair in pairs for text in pair})
    assert summary["sampled"]["precision"] == {"good": clustered, "sampled": clustered, "share": 1.0}
    sizes = Counter(len(cluster) for cluster in components(families))
    by_range = {"2": sizes[2], "3-4": sizes[3] + sizes[4], "5-8": sum(sizes[n] for n in range(5, 9))}
    assert summary["cluster_sizes"] == {
        name: count for name, count in by_range.items() if name in summary["cluster_sizes"]
    }
    assert sum(summary["cluster_sizes"].values()) == len(components(families))
    largest = summary["largest_clusters"][0]
    assert largest["documents"] == max(sizes)
    assert any(
        largest["cluster"] == min(cluster) and set(largest["ids"]) <= cluster for cluster in components(families)
    )


def test_precision_looks_at_what_a_document_was_linked_to_in_a_hot_bucket(
    tmp_path: Path, write_jsonl: Make, recipe: Make, build: Make, words: Make
) -> None:
    header = " ".join(words(1, 150))
    bodies = [" ".join(words(seed, 60)) for seed in range(2, 42)]
    # Each has its near-duplicate forty places on, and a shared header in between.
    texts = [f"{header} {body}" for body in bodies] + [f"{header} {body} end" for body in bodies]
    write_jsonl(tmp_path / "raw" / "a" / "x.jsonl", [{"id": f"{n:02d}", "text": text} for n, text in enumerate(texts)])
    built = build(near(recipe, "a", {"bands": (4, 1)}), tmp_path / "raw", tmp_path / "store", until="deduped")
    summary = built.artifact("clusters", "global").manifest.summary
    assert summary["largest_bucket"] > 40
    assert summary["sampled"]["precision"] == {"good": 80, "sampled": 80, "share": 1.0}


def test_sparse_bands_are_said_to_miss_pairs(of_families: Make, families: Texts) -> None:
    built = of_families(bands=(1, 30))
    recall = built.artifact("clusters", "global").manifest.summary["sampled"]["recall"]
    found = [{families[i] for i in cluster} for cluster in clusters(built)]
    pairs = near_pairs(families)
    together = sum(any(pair <= cluster for cluster in found) for pair in pairs)
    assert (recall["good"], recall["sampled"]) == (2 * together, 2 * len(pairs))
    assert recall["share"] < 0.9
