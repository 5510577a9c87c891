"""Weights, epochs and tokens become whole blocks."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataproc.recipe.phases import PhaseRecipe
from dataproc.shares import apportion, draws
from manifest.errors import RecipeError

BLOCKS = {"web": 100, "code": 10, "books": 1}
WEIGHTS = st.dictionaries(st.text("abcde", min_size=1, max_size=2), st.floats(0, 1), min_size=1).filter(
    lambda weights: sum(weights.values()) > 0
)


def phase(**fields: Any) -> PhaseRecipe:
    return PhaseRecipe.model_validate(fields)


@given(WEIGHTS, st.integers(1, 10**9))
def test_blocks_by_weight_add_up_and_are_within_one_of_their_share(weights: dict[str, float], total: int) -> None:
    parts = apportion(weights, total)
    whole = sum(map(Fraction, weights.values()))
    assert sum(parts.values()) == total
    assert all(abs(parts[name] - Fraction(weight) / whole * total) < 1 for name, weight in weights.items())


@given(WEIGHTS, st.integers(1, 1000))
def test_the_order_of_the_weights_does_not_matter(weights: dict[str, float], total: int) -> None:
    assert apportion(dict(reversed(weights.items())), total) == apportion(weights, total)


def test_weights_share_the_tokens_of_the_phase() -> None:
    drawn = draws("p", phase(weights={"web": 0.7, "code": 0.2, "books": 0.1}, tokens=1600), BLOCKS, 16, ())
    assert drawn == {"web": 70, "code": 20, "books": 10}


def test_published_weights_that_are_rounded_share_all_the_tokens() -> None:
    drawn = draws("p", phase(weights={"web": 0.667, "code": 0.334}, tokens="1M"), BLOCKS, 1000, ())
    assert drawn == {"web": 666, "code": 334}


def test_epochs_are_of_the_blocks_of_each_source() -> None:
    drawn = draws("p", phase(epochs={"web": 0.5, "code": 3, "books": 0.1}), BLOCKS, 16, ())
    assert drawn == {"web": 50, "code": 30, "books": 1}


def test_tokens_per_source_become_whole_blocks_and_at_least_one() -> None:
    drawn = draws("p", phase(tokens={"web": 161, "code": 1, "books": 0}), BLOCKS, 16, ())
    assert drawn == {"web": 10, "code": 1, "books": 0}


def test_epochs_and_tokens_may_be_mixed() -> None:
    assert draws("p", phase(epochs={"web": 1}, tokens={"code": 32}), BLOCKS, 16, ()) == {"web": 100, "code": 2}


def test_a_weight_of_less_than_a_block_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    assert draws("p", phase(weights={"web": 0.99, "code": 0.01}, tokens=160), BLOCKS, 16, ()) == {"web": 10, "code": 0}
    assert "phase 'p': 'code' is not drawn" in capsys.readouterr().err


def test_a_source_without_tokens_is_an_error() -> None:
    with pytest.raises(RecipeError, match="phase 'p' draws from 'wiki', but nothing of that source is left"):
        draws("p", phase(epochs={"web": 1, "wiki": 1}), BLOCKS, 16, ())


def test_a_phase_that_draws_nothing_is_an_error() -> None:
    with pytest.raises(RecipeError, match="phase 'p' draws no block"):
        draws("p", phase(epochs={"web": 0}), BLOCKS, 16, ())
