"""What a build says when it is done."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from dataproc.report import dedup_lines, table

FOUND: dict[str, Any] = {
    "bands": [21, 6],
    "s_curve": {"0.50": 0.283, "0.70": 0.929, "0.80": 0.998, "0.90": 1.0},
    "sampled": {"precision": {"share": 1.0, "sampled": 200}, "recall": {"share": 0.9876, "sampled": 1500}},
    "clusters": 1234,
    "cluster_sizes": {"2": 1200, "3-4": 34},
    "largest_clusters": [
        {"documents": 90 - n, "cluster": f"a/{n}", "excerpt": f"Copyright\n  {n} " + "x" * 200} for n in range(5)
    ],
    "capped_buckets": 0,
    "capped_pairs": 0,
}


def test_how_duplicates_were_found_is_said_in_full() -> None:
    curve, sampled, sizes, *largest = dedup_lines("global", FOUND)
    assert curve == (
        "near-duplicates (global): 21 bands × 6 rows find a pair of Jaccard index J with p = 0.929 at 0.70, "
        "0.998 at 0.80, 1.000 at 0.90"
    )
    assert sampled == "  sampled: precision 1.0000 of 200 documents in clusters, recall 0.9876 of 1,500 pairs"
    assert sizes == "  1,234 clusters: 1,200 of 2, 34 of 3–4 documents"
    assert [line.partition(":")[0] for line in largest] == [f"  {90 - n} like a/{n}" for n in range(3)]
    assert all(len(line) < 110 and "\n" not in line for line in largest)


def test_a_corpus_without_duplicates_says_that_nothing_was_sampled() -> None:
    none = {"share": 0.0, "sampled": 0}
    found = {**FOUND, "clusters": 0, "sampled": {"precision": none, "recall": none}}
    assert list(dedup_lines("a", found))[1:] == [
        "  sampled: precision unknown, of 0 documents in clusters, recall unknown, of 0 pairs"
    ]


def test_pairs_that_were_left_out_are_told() -> None:
    *_, last = dedup_lines("global", {**FOUND, "capped_buckets": 2, "capped_pairs": 1_000_000})
    assert last == "  2 buckets were too large to compare all of their pairs; 1,000,000 pairs were left out"


def test_the_table_sums_and_hides_what_is_nowhere() -> None:
    row = {"records": 1000, "short": 1, "kept": 900, "duplicates_within": 99, "tokens": 5}
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(table({"a": row, "b": {**row, "near_heldout": 3}}))
    shown = console.export_text()
    assert "2,000" in shown
    assert "1,800" in shown
    assert "near" in shown
    assert "tomb" not in shown
