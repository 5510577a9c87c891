"""Bands: the S-curve, the two choices of bands, and what a key stands for."""

import datasketch
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataproc.dedup.band_keys import band_keys
from dataproc.dedup.bands import Bands, optimal_bands, verified_bands


def test_the_bands_of_the_paper() -> None:
    assert optimal_bands(0.8, 128) == Bands(9, 13)
    assert Bands(9, 13).catch_probability(0.8) == pytest.approx(0.40, abs=0.005)


def test_the_bands_of_a_verified_build() -> None:
    assert verified_bands(0.8, 128) == Bands(21, 6)
    assert Bands(21, 6).catch_probability(0.8) == pytest.approx(0.998, abs=0.0005)


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.9])
def test_optimal_bands_are_those_of_datasketch(threshold: float) -> None:
    index = datasketch.MinHashLSH(threshold=threshold, num_perm=64)
    assert optimal_bands(threshold, 64) == Bands(index.b, index.r)


@given(st.floats(0.2, 1.0), st.integers(1, 256), st.floats(0.5, 0.999))
def test_verified_bands_have_the_most_rows_that_reach_the_recall(
    threshold: float, permutations: int, recall: float
) -> None:
    def reaches(rows: int) -> bool:
        return Bands(permutations // rows, rows).catch_probability(threshold) >= recall

    possible = [rows for rows in range(1, permutations + 1) if reaches(rows)]
    if possible:
        assert verified_bands(threshold, permutations, recall) == Bands(permutations // max(possible), max(possible))
    else:
        with pytest.raises(ValueError, match=f"{permutations} permutations"):
            verified_bands(threshold, permutations, recall)


@settings(deadline=None)
@given(st.data(), st.integers(1, 5), st.integers(1, 7))
def test_two_documents_share_a_key_iff_they_agree_in_all_rows_of_a_band(
    data: st.DataObject, count: int, rows: int
) -> None:
    width = count * rows + data.draw(st.integers(0, 2))
    row = st.lists(st.integers(0, 1), min_size=width, max_size=width)
    signatures = np.array(data.draw(st.lists(row, min_size=1, max_size=6)), np.uint32)
    keys = band_keys(signatures, Bands(count, rows))
    meant = [[(b, tuple(s[b * rows : (b + 1) * rows])) for b in range(count)] for s in signatures.tolist()]
    assert keys.shape == (len(signatures), count)
    named = set(zip(keys.ravel().tolist(), [m for ms in meant for m in ms], strict=True))
    assert len(named) == len({key for key, _ in named}) == len({m for _, m in named})


def test_bands_wider_than_the_signature_are_refused() -> None:
    with pytest.raises(ValueError, match=r"126.*100"):
        band_keys(np.zeros((2, 100), np.uint32), Bands(21, 6))


@pytest.mark.parametrize("bands", [(0, 6), (21, 0)])
def test_empty_bands_are_refused(bands: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Bands(*bands)
