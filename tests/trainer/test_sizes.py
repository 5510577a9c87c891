from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from manifest.errors import RecipeError
from trainer.recipe import load_recipe
from trainer.sizes import resolve, resolve_recipe, shape_of

MakeRecipe = Callable[..., Path]

SIZES = """
shared:
  tiny: {layers: 2, width: 16, heads: 2, filter: 40}
  slow: {layers: 2, width: 16, heads: 2, filter: 40, tokens_per_step: 32, warmup_steps: 1}
  odd: {layers: 2, width: 16, heads: 3, filter: 40}
small:
  tiny: {layers: 1, width: 24, heads: 6, kv_heads: 2, filter: 40}
"""


@pytest.fixture
def recipe(make_recipe: MakeRecipe) -> Path:
    file = make_recipe()
    (file.parent.parent / "sizes.yaml").write_text(SIZES)
    return file


def test_a_recipes_own_size_goes_before_the_shared_one(recipe: Path) -> None:
    resolved = resolve(recipe, None)
    shape = shape_of(resolved.recipe, resolved.size, vocab_size=100)
    assert (shape.layers, shape.kv_heads, shape.head_dim) == (1, 2, 4)
    assert shape.padded_vocab == 128


def test_a_size_may_set_the_pace_and_says_so(recipe: Path) -> None:
    resolved = resolve(recipe, "slow")
    phase = resolved.recipe.phases["main"]
    assert (phase.tokens_per_step, phase.schedule.warmup_steps) == (32, 1)
    assert len(resolved.notes) == 2


def test_a_size_shortens_the_warm_up_of_the_weight_decay_too(make_recipe: MakeRecipe) -> None:
    decay = {"shape": "linear", "warmup_steps": 7, "peak": 0.1, "end": 0}
    schedule = {"shape": "constant", "peak": 0.01}
    phase = {"seq_len": 16, "tokens_per_step": 32, "schedule": schedule, "weight_decay": decay}
    file = make_recipe(phases={"main": phase, "rest": phase | {"weight_decay": 0.2}})
    (file.parent.parent / "sizes.yaml").write_text(SIZES)
    resolved = resolve(file, "slow")
    shortened = resolved.recipe.phases["main"].weight_decay
    assert shortened is not None
    assert shortened.warmup_steps == 1
    assert resolved.notes == ("main: 1 steps of the weight decay's warm-up (the recipe has 7)",)


def test_sizes_beside_the_recipe_go_before_those_beside_its_directory(recipe: Path) -> None:
    (recipe.parent / "sizes.yaml").write_text("shared: {mine: {layers: 3, width: 16, heads: 2, filter: 40}}")
    assert resolve(recipe, "mine").size.layers == 3


def test_a_recipe_without_sizes_near_it_says_where_they_are_looked_for(recipe: Path) -> None:
    (recipe.parent.parent / "sizes.yaml").unlink()
    with pytest.raises(RecipeError, match=r"size 'tiny' is looked up in a sizes\.yaml beside the recipe or beside"):
        resolve(recipe, None)


def test_an_unknown_size_names_those_there_are(recipe: Path) -> None:
    with pytest.raises(RecipeError, match="no size 'huge' for recipe 'small'; it has odd, slow, tiny"):
        resolve(recipe, "huge")


def test_heads_must_divide_the_width(recipe: Path) -> None:
    resolved = resolve(recipe, "odd")
    with pytest.raises(RecipeError, match="width 16 does not divide into 3 heads"):
        shape_of(resolved.recipe, resolved.size, vocab_size=100)


def test_sizes_may_come_with_the_recipe_instead_of_a_file(recipe: Path) -> None:
    from_file = resolve(recipe, "slow")
    given = resolve_recipe(load_recipe(recipe), yaml.safe_load(SIZES), "slow")
    assert (given.recipe, given.size, given.notes) == (from_file.recipe, from_file.size, from_file.notes)
    with pytest.raises(RecipeError, match="sizes: no size 'huge' for recipe 'small'"):
        resolve_recipe(load_recipe(recipe), yaml.safe_load(SIZES), "huge")
