"""Weights, epochs and tokens become whole blocks."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from dataproc.recipe.phases import PhaseRecipe
from dataproc.shares import apportion, draws, unimax
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


def test_fixed_parts_come_first_and_the_rest_of_the_total_is_shared() -> None:
    asked = phase(weights={"web": 0.75, "code": 0.25}, epochs={"books": 4}, tokens=1600)
    assert draws("p", asked, BLOCKS, 16, ()) == {"books": 4, "web": 72, "code": 24}


def test_fixed_parts_that_leave_nothing_of_the_total_are_an_error() -> None:
    with pytest.raises(RecipeError, match="take 160 tokens; of the total of 160 none is left to share"):
        draws("p", phase(weights={"web": 1}, epochs={"code": 1}, tokens=160), BLOCKS, 16, ())


@pytest.mark.parametrize(
    ("temperature", "expected"),
    [(1, {"web": 100, "code": 10, "books": 1}), (2, {"web": 78, "code": 25, "books": 8})],
)
def test_temperature_flattens_the_sizes_of_the_sources(temperature: float, expected: dict[str, int]) -> None:
    # τ = 2: 111 blocks by √100 : √10 : √1 = 10 : 3.1623 : 1 are 78.4, 24.8 and 7.8.
    assert draws("p", phase(temperature=temperature, tokens=111 * 16), BLOCKS, 16, tuple(BLOCKS)) == expected


def test_temperature_shares_among_the_views_that_it_names() -> None:
    asked = phase(temperature=1, of=["web", "code"], epochs={"books": 2}, tokens=112 * 16)
    assert draws("p", asked, BLOCKS, 16, tuple(BLOCKS)) == {"books": 2, "web": 100, "code": 10}


SIZES = st.dictionaries(st.text("abcde", min_size=1, max_size=2), st.integers(1, 200), min_size=1)


@given(SIZES, st.floats(0.5, 8), st.data())
def test_unimax_is_the_most_even_split_under_its_caps(
    sizes: dict[str, int], epochs: float, data: st.DataObject
) -> None:
    caps = {view: int(Fraction(epochs) * size) for view, size in sizes.items()}
    total = data.draw(st.integers(0, sum(caps.values())))
    found = unimax("p", sizes, total, epochs)
    assert sum(found.values()) == total
    assert all(found[view] <= caps[view] for view in caps)
    # No view has more than a block over another that could still take one.
    below = [found[view] for view in caps if found[view] < caps[view]]
    assert max(found.values()) - min(below, default=max(found.values())) <= 1


def test_unimax_refuses_more_than_its_caps() -> None:
    with pytest.raises(RecipeError, match=r"asks for 445 blocks; 4 epochs of web, code, books are 444"):
        draws("p", phase(unimax={"max_epochs": 4}, tokens=445 * 16), BLOCKS, 16, tuple(BLOCKS))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"weights": {"web": 1}, "temperature": 2, "tokens": 16}, "weights and temperature each share out"),
        ({"temperature": 2}, "temperature needs 'tokens'"),
        ({"tokens": 16}, "needs 'weights', 'temperature' or 'unimax'"),
        ({"weights": {"web": 1}, "epochs": {"web": 1}, "tokens": 16}, "have a fixed part and a share of the rest"),
        ({"epochs": {"web": 1}, "tokens": {"web": 16}}, "both epochs and tokens"),
        ({"tokens": {"web": 16}, "budgets": {"code": 16}}, "give tokens per view once"),
        ({"weights": {"web": 1}, "of": ["web"], "tokens": 16}, "'of' names the views of temperature and unimax"),
        ({}, "draws nothing"),
    ],
)
def test_a_phase_that_contradicts_itself_is_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        phase(**fields)
