"""What a build says of how good its clusters are."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path

import pytest
from tests.dataproc.dedup.conftest import edited
from tests.dataproc.dedup.near.conftest import THRESHOLD, Make, Texts, clusters, components, jaccard, near

from dataproc.dedup import links


def near_pairs(texts: Texts) -> list[set[str]]:
    """The pairs of different texts at the threshold; each is sampled from both of its ends."""
    pairs = itertools.combinations(sorted(set(texts.values())), 2)
    return [{a, b} for a, b in pairs if jaccard(a, b) >= THRESHOLD]


def test_a_capped_bucket_is_reported(deduped: Make, words: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links, "BUCKET_CAP", 3)
    base = words(1, 80)
    built = deduped({f"a/{i:03d}": " ".join(edited(base, i, 1)) for i in range(12)})
    assert built.artifact("clusters", "global").manifest.summary["capped_buckets"] > 0


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
