from __future__ import annotations

import numpy as np
import pytest

from evalkit import intervals
from evalkit.intervals import RESAMPLES, middle, resampled_sums


def values(rows: int) -> np.ndarray:
    return np.random.default_rng(rows).uniform(1, 9, size=(rows, 2))


def test_sums_are_those_of_a_loop_over_resamples() -> None:
    values_ND = values(13)
    generator = np.random.default_rng(5)
    expected = []
    for _ in range(RESAMPLES):
        drawn = generator.integers(0, 13, size=13)
        expected.append([sum(values_ND[i, 0] for i in drawn), sum(values_ND[i, 1] for i in drawn)])
    assert resampled_sums(values_ND, seed=5) == pytest.approx(np.array(expected))


def test_sums_do_not_depend_on_how_many_are_drawn_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = resampled_sums(values(37), seed=1)
    monkeypatch.setattr(intervals, "CHUNK", 101)
    assert np.array_equal(resampled_sums(values(37), seed=1), whole)


def test_the_interval_of_a_mean_is_that_of_the_normal_distribution() -> None:
    drawn_N = np.random.default_rng(0).normal(10, 2, size=2000)
    sums_RD = resampled_sums(np.stack([drawn_N, np.ones(2000)], axis=1), seed=0)
    low, high = middle(sums_RD[:, 0] / sums_RD[:, 1])
    half_width = 1.96 * drawn_N.std() / np.sqrt(2000)
    assert (low, high) == pytest.approx(
        (drawn_N.mean() - half_width, drawn_N.mean() + half_width), abs=0.1 * half_width
    )
