from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from manifest.artifact import Opened
from manifest.errors import RecipeError
from trainer.plan import make_plan, memory_bytes
from trainer.sizes import resolve

RECIPES = Path(__file__).parents[2] / "recipes"


def test_btlm_in_full_is_the_papers() -> None:
    plan = make_plan(resolve(RECIPES / "btlm" / "train.yaml", "full"), mixture=None, tokens=None)
    assert plan.parameters == pytest.approx(2.65e9, rel=0.01)
    assert plan.steps == 159_636
    assert plan.tokens == 159_636 * 3_932_160
    short, long = plan.phases
    assert short.tokens == pytest.approx(470.8e9, rel=1e-3)
    assert long.tokens == pytest.approx(156.9e9, rel=1e-3)
    # 6 per parameter of a product, and 6 · 32 layers · 2,560 · length of causal attention.
    assert short.flops_per_token == pytest.approx(6 * 2.65e9 + 6 * 32 * 2560 * 2048, rel=0.01)
    assert long.flops_per_token - short.flops_per_token == 6 * 32 * 2560 * (8192 - 2048)


def test_a_plan_over_a_mixture_has_its_steps_and_tokens(
    make_mixture: Callable[..., Opened], make_recipe: Callable[..., Path]
) -> None:
    mixture = make_mixture({"main": {"a": 5, "b": 2}})
    plan = make_plan(resolve(make_recipe(), None), mixture=mixture.uri, tokens=None)
    assert (plan.tokens, plan.steps) == (7 * 64, 4)
    scaled = make_plan(resolve(make_recipe(), None), mixture=mixture.uri, tokens=3 * 64)
    assert (scaled.tokens, scaled.steps) == (3 * 64, 2)


def test_without_mixture_or_reference_there_are_no_tokens(make_recipe: Callable[..., Path]) -> None:
    plan = make_plan(resolve(make_recipe(), None), mixture=None, tokens=None)
    assert (plan.tokens, plan.steps, plan.flops) == (None, None, None)
    assert plan.padded_vocab == 128


def test_an_unknown_size_is_refused(make_recipe: Callable[..., Path]) -> None:
    with pytest.raises(RecipeError, match="no size 'vast'"):
        resolve(make_recipe(), "vast")


def test_memory_falls_with_stage_and_workers() -> None:
    held = memory_bytes(1_000_000)
    assert held["zero 0"] == {"1": 16_000_000, "8": 16_000_000, "64": 16_000_000}
    assert held["zero 3"]["64"] == 4_000_000 // 64 + 12_000_000 // 64
    assert held["zero 1"]["8"] > held["zero 2"]["8"] > held["zero 3"]["8"]
