"""Who survives of a cluster, and what the ledger says of the others."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tests.dataproc.dedup.near.conftest import Make, Texts, clusters, jaccard, kept, near


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


def test_a_number_in_the_metadata_may_decide_who_survives(
    tmp_path: Path, write_jsonl: Make, recipe: Make, build: Make, words: Make, capsys: pytest.CaptureFixture[str]
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
    assert set(ledger_by({"highest": "scores"}, "id").values()) == {("a/0", "id")}
    assert "'scores' decides nothing in a" in (said := capsys.readouterr().err)
    assert "did you mean 'score'?" in said


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
