from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from evalkit.tasks.bits_per_byte import ALL, ROWS, differences, scores


def rows(*, web: int = 20, code: int = 30, bits_factor: float = 1.0) -> pa.Table:
    rng = np.random.default_rng(1)
    found = []
    for number in range(web + code):
        size = int(rng.integers(100, 5000))
        source = "web" if number < web else "code"
        bits = size * rng.uniform(1, 3) * bits_factor
        found.append({"id": f"{source}/{number}", "source": source, "bytes": size, "tokens": size // 3, "bits": bits})
    return pa.Table.from_pylist(found, schema=ROWS)


def bits(table: pa.Table) -> np.ndarray:
    return np.asarray(table["bits"].to_numpy())


def test_a_score_is_all_bits_over_all_bytes() -> None:
    table = rows()
    found = {score.source: score for score in scores(table)}
    assert list(found) == [ALL, "code", "web"]
    assert found[ALL].value == pytest.approx(sum(table["bits"].to_pylist()) / sum(table["bytes"].to_pylist()))
    of_web = [row for row in table.to_pylist() if row["source"] == "web"]
    assert found["web"].value == pytest.approx(sum(r["bits"] for r in of_web) / sum(r["bytes"] for r in of_web))
    assert found["web"].count == 20


def test_intervals_contain_the_score_and_do_not_depend_on_other_sources() -> None:
    both, alone = scores(rows()), scores(rows(code=0))
    assert all(score.low < score.value < score.high for score in both)
    assert both[2] == alone[1]


def test_few_documents_give_their_range() -> None:
    table = rows(web=3)
    web = scores(table)[2]
    values = [row["bits"] / row["bytes"] for row in table.to_pylist() if row["source"] == "web"]
    assert (web.low, web.high) == pytest.approx((min(values), max(values)))


def test_a_model_does_not_differ_from_itself() -> None:
    table = rows()
    assert [(d.value, d.low, d.high) for d in differences(table, bits(table))] == [(0, 0, 0)] * 3


def test_a_difference_is_paired() -> None:
    table = rows()
    ours, other = scores(table), scores(rows(bits_factor=1.1))
    paired = differences(table, bits(table) * 1.1)
    assert [d.value for d in paired] == pytest.approx(
        [mine.value - theirs.value for mine, theirs in zip(ours, other, strict=True)]
    )
    assert all(d.high < 0 for d in paired)
    assert all(d.high - d.low < 0.2 * (score.high - score.low) for d, score in zip(paired, ours, strict=True))
