"""Every recipe of the repository can be read, and the halves of a phase fit together."""

from __future__ import annotations

from pathlib import Path

import pytest

from dataproc.recipe import read
from evalkit.recipe import load_recipe as load_eval_recipe
from trainer.recipe import load_recipe as load_train_recipe
from trainer.sizes import load_size, sizes_file

RECIPES = Path(__file__).parents[2] / "recipes"
NAMES = sorted(path.parent.name for path in RECIPES.glob("*/train*.yaml"))


def test_there_are_recipes() -> None:
    assert {"demo", "btlm"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_the_phases_of_data_and_training_have_the_same_names_in_the_same_order(name: str) -> None:
    data = read(RECIPES / name / "data.yaml")
    train = load_train_recipe(RECIPES / name / "train.yaml")
    assert list(data.phases) == list(train.phases)
    assert all(data.block_tokens % phase.seq_len == 0 for phase in train.phases.values())


@pytest.mark.parametrize("name", NAMES)
def test_the_size_that_a_recipe_names_exists(name: str) -> None:
    file = RECIPES / name / "train.yaml"
    train = load_train_recipe(file)
    assert load_size(sizes_file(file), train.name, train.size).layers > 0


@pytest.mark.parametrize("name", NAMES)
def test_eval_recipes_are_read(name: str) -> None:
    assert load_eval_recipe(RECIPES / name / "eval.yaml").tasks


def test_btlm_reads_as_many_tokens_as_the_paper_trained_on() -> None:
    data = read(RECIPES / "btlm" / "data.yaml")
    train = load_train_recipe(RECIPES / "btlm" / "train.yaml")
    for name, phase in data.phases.items():
        steps = train.phases[name].reference_steps
        assert steps is not None
        assert phase.tokens == steps * train.phases[name].tokens_per_step
