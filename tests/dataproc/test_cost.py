"""The cost model: sizes against a build, and how it grows. Times are checked by `make bench-dedup`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dataproc import cost
from dataproc.estimate import estimate
from dataproc.recipe import DataRecipe

Make = Callable[..., Any]
DOCUMENTS = 600
TIMES = {"parse": 2e-9, "repair": 1e-8, "sketch": 4e-9, "sets": 1e-8, "read": 1e-9, "write": 3e-9}
RATES = cost.Rates(**TIMES, size=0.55, shingles=1.0)


@pytest.fixture
def raw(tmp_path: Path, words: Make, write_jsonl: Make) -> Path:
    texts = [" ".join(words(seed, 60 + seed % 200)) for seed in range(DOCUMENTS)]
    for source, part in (("a", texts[::2]), ("b", texts[1::2])):
        write_jsonl(tmp_path / "raw" / source / "0.jsonl", [{"text": text} for text in part])
    return tmp_path / "raw"


def of_size(recipe: DataRecipe, documents: int, text_bytes: int) -> cost.Cost:
    return cost.of_size(documents, text_bytes, recipe, RATES, memory_bytes=600_000_000)


def test_artifacts_take_what_a_build_of_them_takes(raw: Path, tmp_path: Path, recipe: Make, build: Make) -> None:
    small = recipe(dedup={"scope": "global"})
    found = estimate(small, str(raw)).sources
    rates = cost.measure([text for source in found.values() for text in source.texts], small)
    told = cost.predict(found, small, rates, memory_bytes=600_000_000)
    build(small, raw, tmp_path / "store", until="deduped")
    seen = sum(f.stat().st_size for f in (tmp_path / "store").rglob("*") if f.suffix in (".parquet", ".npy"))
    assert told.artifacts == pytest.approx(seen, rel=0.25)


def test_every_stage_up_to_deduped_has_its_seconds(recipe: Make) -> None:
    told = of_size(recipe(), 1_000_000, 3_000_000_000)
    assert list(told.seconds) == ["documents", "signatures", "clusters", "ledger", "deduped"]
    assert all(seconds > 0 for seconds in told.seconds.values())
    assert told.cpu_s == sum(told.seconds.values())


def test_everything_grows_as_the_corpus_does(recipe: Make) -> None:
    one, ten = (of_size(recipe(), n, 3_000 * n) for n in (1_000_000, 10_000_000))
    fixed = sum(cost.STAGE_S.values())
    assert ten.cpu_s - fixed == pytest.approx(10 * (one.cpu_s - fixed))
    for what in ("artifacts", "scratch", "shuffle"):
        assert getattr(ten, what) == pytest.approx(10 * getattr(one, what), rel=1e-6)
    assert ten.worker == one.worker
    assert ten.driver - one.driver == 9_000_000 * cost.DRIVER_BYTES


def test_what_is_not_verified_costs_no_shingle_sets(recipe: Make) -> None:
    exact, unverified = (recipe(dedup={"scope": "global", "verify": verify}) for verify in ("exact", "none"))
    assert (
        of_size(unverified, 10**6, 3 * 10**9).seconds["clusters"] < of_size(exact, 10**6, 3 * 10**9).seconds["clusters"]
    )
    assert of_size(unverified, 10**6, 3 * 10**9).scratch < of_size(exact, 10**6, 3 * 10**9).scratch


def test_rates_are_of_the_recipes_own_texts(words: Make, recipe: Make) -> None:
    texts = [" ".join(words(seed, 400)) for seed in range(50)]
    characters = cost.measure(texts, recipe(dedup={"scope": "global", "unit": "char", "ngram": 13}))
    in_words = cost.measure(texts, recipe(dedup={"scope": "global", "unit": "word", "ngram": 5}))
    size = sum(map(len, texts))
    assert characters.shingles == pytest.approx(1.0, abs=0.02)
    assert in_words.shingles == pytest.approx(50 * 396 / size, rel=1e-6)
    assert all(value > 0 for value in vars(in_words).values())


def test_a_person_reads_round_figures_with_units(recipe: Make) -> None:
    told = replace(of_size(recipe(), 10**9, 5 * 10**12), seconds={"documents": 2 * 86400.0, "ledger": 7200.0})
    first, second = cost.lines(told, workers=64)
    assert "about 2.1 days of CPU (documents 2.0 days, ledger 2.0 h)" in first
    assert "with 64 workers about 46.9 min" in first
    assert " TB of artifacts" in second
    assert "850 MB a worker" in second
