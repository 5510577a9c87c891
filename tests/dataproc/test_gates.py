"""Gates stop a build before it publishes, and again when a stricter recipe meets what a laxer one published."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from manifest.errors import DataError

Make = Callable[..., Any]


@pytest.fixture
def raw(tmp_path: Path, write_jsonl: Make, words: Make) -> Path:
    same = " ".join(words(0, 40))
    write_jsonl(tmp_path / "raw" / "a" / "x.jsonl", [{"text": same, "n": n} for n in range(10)])
    write_jsonl(tmp_path / "raw" / "b" / "x.jsonl", [{"text": " ".join(words(n, 40))} for n in range(1, 4)])
    return tmp_path / "raw"


def gated(recipe: Make, **gates: float) -> Any:
    return recipe(dedup={"scope": "global", "gates": gates})


def test_a_cluster_that_is_too_large_stops_the_build(raw: Path, tmp_path: Path, recipe: Make, build: Make) -> None:
    with pytest.raises(DataError, match=r"gate max_cluster: .* group 'global' has 10 documents; the recipe allows 9"):
        build(gated(recipe, max_cluster=9), raw, tmp_path / "store")
    assert not (tmp_path / "store" / "clusters").exists()
    build(gated(recipe, max_cluster=10), raw, tmp_path / "store")
    with pytest.raises(DataError, match="gate max_cluster"):
        build(gated(recipe, max_cluster=9), raw, tmp_path / "store")


def test_a_source_that_loses_too_much_stops_the_build(raw: Path, tmp_path: Path, recipe: Make, build: Make) -> None:
    with pytest.raises(DataError, match=r"gate max_source_loss: .* leave 1 of 10 documents of source 'a'"):
        build(gated(recipe, max_source_loss=0.89), raw, tmp_path / "store")
    assert not list((tmp_path / "store").glob("deduped/a-*"))
    build(gated(recipe, max_source_loss=0.9), raw, tmp_path / "store")
    with pytest.raises(DataError, match="gate max_source_loss"):
        build(gated(recipe, max_source_loss=0.89), raw, tmp_path / "store")


def test_a_laxer_gate_makes_nothing_new(raw: Path, tmp_path: Path, recipe: Make, build: Make) -> None:
    strict = build(gated(recipe, max_cluster=10), raw, tmp_path / "store", until="deduped")
    lax = build(gated(recipe, max_cluster=1000), raw, tmp_path / "store", until="deduped")
    assert [item.uri for item in lax.published] == [item.uri for item in strict.published]


def test_an_override_lets_a_build_pass_and_its_reason_stands_in_the_mixture(
    raw: Path, tmp_path: Path, recipe: Make, build: Make
) -> None:
    override = {"max_cluster": "they are copies"}
    built = build(gated(recipe, max_cluster=9, override=override), raw, tmp_path / "store")
    record = {"gate": "max_cluster", "where": "clusters/global", "found": 10, "allowed": 9, "reason": "they are copies"}
    assert built.mixture.summary["overridden"] == [record]
    assert built.mixture.config["dedup"]["gates"]["override"] == override
    plain = build(gated(recipe, max_cluster=10), raw, tmp_path / "store")
    assert "overridden" not in plain.mixture.summary


def test_clusters_of_documents_that_are_not_alike_stop_the_build(
    raw: Path, tmp_path: Path, recipe: Make, build: Make, words: Make
) -> None:
    """One band of one row links nearly everything that shares a header."""
    header = " ".join(words(99, 60))
    lines = [{"text": f"{header} {' '.join(words(n, 60))}"} for n in range(30)]
    (raw / "b" / "x.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    loose = {"scope": "global", "verify": "none", "bands": (8, 1)}
    with pytest.raises(DataError, match=r"gate min_precision: of 3[01] sampled documents .* 0 are near another"):
        build(recipe(dedup=loose), raw, tmp_path / "store")
    gates = {"override": {"min_precision": "a test"}}
    build(recipe(dedup={**loose, "gates": gates}), raw, tmp_path / "store", until="clusters")
