from __future__ import annotations

import itertools
import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifest.permutation import permutation

SIZES = st.one_of(st.integers(1, 40), st.integers(1, 3000))


def image(size: int, seed: int, stream: str = "a", epoch: int = 0) -> list[int]:
    pi = permutation(size, seed=seed, stream=stream, epoch=epoch)
    return [pi.forward(index) for index in range(size)]


@given(SIZES, st.integers(0, 2**40), st.integers(0, 5))
def test_every_value_is_taken_exactly_once(size: int, seed: int, epoch: int) -> None:
    assert sorted(image(size, seed, epoch=epoch)) == list(range(size))


@given(st.integers(1, 10**12), st.integers(0, 1000), st.data())
def test_inverse_undoes_forward_at_any_size(size: int, seed: int, data: st.DataObject) -> None:
    pi = permutation(size, seed=seed, stream="a", epoch=0)
    index = data.draw(st.integers(0, size - 1))
    assert pi.inverse(pi.forward(index)) == index
    assert pi.forward(pi.inverse(index)) == index


def test_seed_stream_and_epoch_each_give_another_permutation() -> None:
    images = [image(50, 1), image(50, 2), image(50, 1, stream="b"), image(50, 1, epoch=1)]
    assert len({tuple(values) for values in images}) == 4


def chi_squared_in_deviations(counts: list[int]) -> float:
    """How many standard deviations the chi-squared statistic of equal shares lies above its mean."""
    expected, freedom = sum(counts) / len(counts), len(counts) - 1
    statistic = sum((count - expected) ** 2 / expected for count in counts)
    return (statistic - freedom) / math.sqrt(2 * freedom)


@pytest.mark.parametrize("size", [2, 3, 4])
def test_all_permutations_of_few_values_are_about_equally_frequent(size: int) -> None:
    seen = Counter(tuple(image(size, seed)) for seed in range(200 * math.factorial(size)))
    counts = [seen[values] for values in itertools.permutations(range(size))]
    assert chi_squared_in_deviations(counts) < 5


@pytest.mark.parametrize("size", [5, 7, 16, 17])
def test_every_value_is_about_as_often_at_every_place(size: int) -> None:
    seen = Counter(place for seed in range(100 * size) for place in enumerate(image(size, seed)))
    counts = [seen[index, value] for index in range(size) for value in range(size)]
    assert chi_squared_in_deviations(counts) < 5


@pytest.mark.parametrize("outside", [-1, 7])
def test_an_index_outside_the_domain_is_refused(outside: int) -> None:
    pi = permutation(7, seed=0, stream="a", epoch=0)
    with pytest.raises(IndexError):
        pi.forward(outside)
    with pytest.raises(IndexError):
        pi.inverse(outside)
