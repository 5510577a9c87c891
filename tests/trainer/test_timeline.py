from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifest.artifact import Opened
from manifest.errors import RecipeError
from trainer.recipe import load_recipe
from trainer.timeline import apportion, make_timeline, scaled_draws, tokens_before

MakeMixture = Callable[..., Opened]
MakeRecipe = Callable[..., Path]


def phases(*names: str, seq_len: int = 16) -> dict[str, object]:
    schedule = {"shape": "constant", "peak": 0.1}
    return {name: {"seq_len": seq_len, "tokens_per_step": 128, "schedule": schedule} for name in names}


@given(weights=st.lists(st.integers(1, 1000), min_size=1, max_size=8), total=st.integers(0, 3000))
def test_shares_are_whole_sum_to_the_total_and_are_near_their_quota(weights: list[int], total: int) -> None:
    shares = apportion(weights, total)
    assert sum(shares) == total
    assert all(share >= 0 for share in shares)
    if total >= len(weights):
        assert all(share >= 1 for share in shares)
    quotas = [weight * total / sum(weights) for weight in weights]
    if all(quota >= 1 for quota in quotas):
        assert all(abs(share - quota) < 1 for share, quota in zip(shares, quotas, strict=True))


def test_tokens_scale_all_draws_pro_rata() -> None:
    draws = {"first": {"a": 60, "b": 20}, "second": {"a": 19, "c": 1, "d": 0}}
    assert scaled_draws(draws, 10, 500) == {"first": {"a": 30, "b": 10}, "second": {"a": 9, "c": 1}}
    assert scaled_draws(draws, 10, 2000) == {"first": {"a": 120, "b": 40}, "second": {"a": 38, "c": 2}}
    assert scaled_draws(draws, 10, None) == draws


def test_too_few_tokens_for_a_phase_are_refused() -> None:
    with pytest.raises(RecipeError, match="leaves none for phase 'second'; give at least 20"):
        scaled_draws({"first": {"a": 9}, "second": {"a": 1}}, 10, 15)


@pytest.mark.parametrize(
    ("learned", "message"),
    [
        (("other",), r"phase 'other' is not in the mixture \(mixture mix-\w+ has 'main'\); rename it"),
        (("main", "late"), "phase 'late' is not in the mixture"),
    ],
)
def test_phases_that_do_not_fit_are_named(
    make_mixture: MakeMixture, make_recipe: MakeRecipe, learned: tuple[str, ...], message: str
) -> None:
    recipe = load_recipe(make_recipe(phases=phases(*learned)))
    with pytest.raises(RecipeError, match=message):
        make_timeline(make_mixture({"main": {"a": 4}}).manifest, recipe, where="r.yaml", seed=0, tokens=None)


def test_a_phase_of_the_mixture_that_is_not_learned_is_named(
    make_mixture: MakeMixture, make_recipe: MakeRecipe
) -> None:
    mixture = make_mixture({"one": {"a": 4}, "two": {"a": 4}}).manifest
    with pytest.raises(RecipeError, match=r"r\.yaml: phase 'two' of the mixture is missing"):
        make_timeline(mixture, load_recipe(make_recipe(phases=phases("one"))), where="r.yaml", seed=0, tokens=None)
    recipe = load_recipe(make_recipe(phases=phases("two", "one")))
    with pytest.raises(RecipeError, match="Put them in the same order"):
        make_timeline(mixture, recipe, where="r.yaml", seed=0, tokens=None)


def test_windows_must_divide_the_blocks(make_mixture: MakeMixture, make_recipe: MakeRecipe) -> None:
    recipe = load_recipe(make_recipe(phases={"main": phases("main", seq_len=16)["main"]} | {}))
    odd = recipe.model_copy(
        update={"phases": {"main": recipe.phases["main"].model_copy(update={"seq_len": 24, "tokens_per_step": 48})}}
    )
    with pytest.raises(RecipeError, match="found 24, which does not divide the blocks of 64 tokens"):
        make_timeline(make_mixture({"main": {"a": 4}}).manifest, odd, where="r", seed=0, tokens=None)


def test_tokens_before_a_step_are_the_windows_of_all_steps_before_it(
    make_mixture: MakeMixture, make_recipe: MakeRecipe
) -> None:
    recipe = load_recipe(make_recipe(phases=phases("one") | phases("two", seq_len=32)))
    mixture = make_mixture({"one": {"a": 3}, "two": {"a": 5, "b": 2}}).manifest
    timeline = make_timeline(mixture, recipe, where="r", seed=0, tokens=None)
    total = 0
    for step in range(timeline.total_steps):
        assert tokens_before(timeline, step) == total
        windows = timeline.step(step)
        total += (windows.stop - windows.first) * timeline.paces[windows.segment].seq_len
    assert tokens_before(timeline, timeline.total_steps) == total == 10 * 64
