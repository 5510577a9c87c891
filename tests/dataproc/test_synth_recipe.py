"""A wrong synth recipe or flag is refused with the field, what was found and what is expected."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dataproc.synth.plan import apportioned, plan
from dataproc.synth.recipe import SynthRecipe, read
from manifest.errors import RecipeError

RECIPES = Path(__file__).parents[2] / "recipes" / "synth"
GOOD = """
name: small
sources: {text: {files: "*/*"}}
into: {web: 0.7, books: 0.3}
copies:
  share: 0.3
  kinds:
    exact: {share: 0.4}
    edits: {share: 0.6, params: [0.01, 0.05]}
"""


def refused(tmp_path: Path, text: str) -> str:
    path = tmp_path / "synth.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError) as error:
        read(path)
    return str(error.value)


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        ("exact:", "exakt:", "no such kind: 'exakt'; did you mean 'exact'?"),
        ("copies:", "copys:", "unknown key 'copys'; did you mean 'copies'?"),
        ("share: 0.6", "share: 0.5", "the shares of kinds add up to 0.9000, expected 1"),
        ("web: 0.7", "web: 0.5", "the shares add up to 0.8000, expected 1"),
        ("share: 0.3", "share: 1.0", "copies and templates take 1.0000 of the documents; some must be left"),
        (", params: [0.01, 0.05]", "", "kind 'edits' needs 'params', each the share of words that are edited"),
        ("{share: 0.4}", "{share: 0.4, params: [0.1]}", "kind 'exact' has no parameter"),
        ("0.05]", "1.5]", "less than or equal to 1"),
        ('"*/*"', '"../*"', "is not below --raw"),
        ('"*/*"}', '"*/*", min_chars: 5}', "['min_chars'] mean nothing here"),
        ("web:", "we/b:", "source 'we/b': use letters, digits, '_' and '-' only"),
        ("name: small", "name: small\nlengths: {min_chars: 5k}", "expected min_chars ≤ median_chars ≤ max_chars"),
        ("name: small", "name: small\ntemplates: [{share: 0.1, words: 20, fields: 11}]", "do not fit into 20 words"),
    ],
)
def test_a_wrong_recipe_says_what_is_wrong(tmp_path: Path, right: str, wrong: str, said: str) -> None:
    assert right in GOOD
    assert said in refused(tmp_path, GOOD.replace(right, wrong, 1))


def test_the_benchmarks_corpus_has_the_stated_parts() -> None:
    made = plan(read(RECIPES / "duplicates.yaml"), 201_500, seed=0)
    assert (made.base, sum(map(len, made.copies)), made.members) == (150_000, 49_500, (2_000,))
    assert made.documents == 201_500


@pytest.mark.parametrize("recipe", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.name)
@pytest.mark.parametrize("documents", [1, 2, 7, 1_000, 12_345])
def test_a_plan_has_as_many_documents_as_were_asked_for(recipe: Path, documents: int) -> None:
    made = plan(read(recipe), documents, seed=3)
    assert made.documents == documents
    assert list(made.parents) == sorted(made.parents)
    assert all(0 <= parent < made.base for parent in made.parents)


def test_parts_are_nearest_to_their_shares_and_add_up() -> None:
    assert apportioned(10, [0.5, 0.25, 0.25]) == [5, 3, 2]
    assert apportioned(7, [1, 1, 1]) == [3, 2, 2]
    assert apportioned(5, []) == []


def test_one_base_may_have_all_copies() -> None:
    fields: dict[str, Any] = {"share": 0.9, "sizes": {"exponent": 0, "max_copies": 3}, "kinds": {"exact": {"share": 1}}}
    recipe = SynthRecipe.model_validate(
        {"name": "x", "sources": {"a": {"files": "*"}}, "into": {"a": 1}, "copies": fields}
    )
    made = plan(recipe, 50, seed=0)
    assert (made.base, sum(map(len, made.copies))) == (5, 45)


@pytest.mark.parametrize(
    ("documents", "said"),
    [("many", "--documents: 'many' is not a count"), ("0", "--documents 0: expected at least 1")],
)
def test_a_wrong_number_of_documents_ends_with_2(zygote: Any, tmp_path: Path, documents: str, said: str) -> None:
    (tmp_path / "raw" / "a").mkdir(parents=True)
    (tmp_path / "raw" / "a" / "x.txt").write_text("text")
    outcome = zygote.run(
        "synth",
        RECIPES / "duplicates.yaml",
        "--raw",
        tmp_path / "raw",
        "--documents",
        documents,
        "--out",
        tmp_path / "c",
    )
    assert (outcome.code, outcome.stdout) == (2, "")
    assert said in outcome.stderr


def test_the_command_prints_where_the_corpus_is(zygote: Any, tmp_path: Path) -> None:
    (tmp_path / "raw" / "a").mkdir(parents=True)
    (tmp_path / "raw" / "a" / "x.txt").write_text(
        "\n\n".join(f"Paragraph {i} has words of its own." for i in range(99))
    )
    (tmp_path / "synth.yaml").write_text(GOOD + "lengths: {median_chars: 400, max_chars: 500}\n")
    options = ["--raw", tmp_path / "raw", "--documents", "5", "--out", tmp_path / "corpus"]
    outcome = zygote.run("synth", tmp_path / "synth.yaml", *options)
    assert (outcome.code, outcome.stdout) == (0, f"{tmp_path / 'corpus'}\n"), outcome.stderr
    assert (tmp_path / "corpus" / "truth.parquet").is_file()
