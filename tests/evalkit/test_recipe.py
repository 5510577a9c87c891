from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from evalkit.recipe import load_recipe
from manifest.errors import RecipeError

RECIPES = Path(__file__).parents[2] / "recipes"
Write = Callable[[str], Path]


def test_a_limit_may_be_written_as_people_write_counts(recipe_file: Write) -> None:
    assert load_recipe(recipe_file("name: x\ntasks: [bits_per_byte]\nlimit: 2k")).limit == 2000


def test_an_unknown_task_is_answered_with_those_there_are(recipe_file: Write) -> None:
    with pytest.raises(RecipeError, match=r"eval.yaml: 'tasks': there is no task 'blimp'; known are bits_per_byte"):
        load_recipe(recipe_file("name: x\ntasks: [bits_per_byte, blimp]"))


def test_a_task_with_options_is_unknown_too(recipe_file: Write) -> None:
    with pytest.raises(RecipeError, match=r"there is no task.*open_llm.*bits_per_byte"):
        load_recipe(recipe_file("name: x\ntasks: [{set: open_llm}]"))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("name: x\ntasks: []", "tasks"),
        ("name: x\ntasks: [bits_per_byte]\nlimit: 0", "limit"),
        ("name: x\ntasks: [bits_per_byte]\nlimits: 3", "did you mean 'limit'"),
        ("tasks: [bits_per_byte]", "'name' is missing"),
        ("name: a/b\ntasks: [bits_per_byte]", "name"),
    ],
)
def test_what_is_wrong_is_named(recipe_file: Write, text: str, problem: str) -> None:
    with pytest.raises(RecipeError, match=problem):
        load_recipe(recipe_file(text))


@pytest.mark.parametrize("file", sorted(RECIPES.glob("*/eval.yaml")), ids=lambda file: file.parent.name)
def test_the_recipes_of_the_project_load(file: Path) -> None:
    assert load_recipe(file).tasks
