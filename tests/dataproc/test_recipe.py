"""A wrong recipe is refused with the file, the field, what was found and what is expected."""

from __future__ import annotations

from pathlib import Path

import pytest

from dataproc.dedup.bands import Bands, optimal_bands
from dataproc.recipe import DataRecipe, read
from manifest.errors import RecipeError

GOOD = """
name: small
sources:
  web: {files: "web/*"}
  code: {files: ["code/*", "more/**"], id: path, min_chars: 0}
tokenizer: {train: {vocab_size: 1k}}
phases:
  first: {weights: {web: 0.9, code: 0.1}, tokens: 200k}
  second: {epochs: {web: 0.5}, tokens: {code: 1.5M}}
"""


def refused(tmp_path: Path, text: str) -> str:
    path = tmp_path / "data.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError) as error:
        read(path)
    message = str(error.value)
    assert message.startswith(str(path))
    return message


@pytest.fixture
def good(tmp_path: Path) -> DataRecipe:
    path = tmp_path / "good.yaml"
    path.write_text(GOOD)
    return read(path)


def test_counts_are_read_with_their_suffixes(good: DataRecipe) -> None:
    assert good.phases["first"].tokens == 200_000
    assert good.phases["second"].budgets == {"code": 1_500_000}
    assert good.tokenizer.train is not None
    assert good.tokenizer.train.vocab_size == 1000


def test_a_source_overrides_the_cleaning_of_the_recipe(good: DataRecipe) -> None:
    assert good.sources["web"].cleaning(good.clean).min_chars == 200
    assert good.sources["code"].cleaning(good.clean).min_chars == 0


def test_shingles_are_13_characters_or_5_words(tmp_path: Path) -> None:
    def ngram(dedup: str) -> int:
        path = tmp_path / "data.yaml"
        path.write_text(GOOD + f"dedup: {dedup}\n")
        return read(path).dedup.ngram

    assert [ngram(d) for d in ("{}", "{unit: word}", "{unit: word, ngram: 7}", "{ngram: 9}")] == [13, 5, 7, 9]


@pytest.mark.parametrize(
    ("found", "wrong", "said"),
    [
        ("name:", "nmae:", ["unknown key 'nmae'", "did you mean 'name'?"]),
        ("id: path", "idd: path", ["'sources.code.idd'", "did you mean 'id'?"]),
        ("web: 0.9", "wed: 0.9", ["phase 'first' draws from ['wed']", "['code', 'web']"]),
        ("web: 0.9", "web: 0.8", ["'phases.first'", "add up to 0.9000, expected 1"]),
        ("web: 0.9", "web: .nan", ["'phases.first.weights.web'", "finite", "nan"]),
        ("web: 0.9", "web: -0.1", ["'phases.first.weights.web'", "greater than or equal to 0", "-0.1"]),
        ("web: 0.5", "web: .inf", ["'phases.second.epochs.web'", "finite", "inf"]),
        ("200k", "1.5x", ["'phases.first.tokens'", "'1.5x' is not a count", "200k"]),
        ("200k", "0", ["'phases.first'", "tokens: 0", "above 0"]),
        ("200k", "-4000", ["'phases.first'", "tokens: -4000", "above 0"]),
        (", tokens: 200k", "", ["'phases.first'", "weights need 'tokens'"]),
        ("vocab_size: 1k", "vocab_size: 200", ["'tokenizer.train.vocab_size'", "257", "200"]),
        ("train: {vocab_size: 1k}", "", ["'tokenizer'", "exactly one of 'train', 'path', 'extend' and 'replace'"]),
        ('"web/*"', '"/etc/*"', ["'sources.web.files'", "'/etc/*' is not below --raw"]),
        ('"web/*"', '"../web/*"', ["'sources.web.files'", "'../web/*' is not below --raw"]),
        ('"web/*"', "[]", ["'sources.web.files'", "at least 1"]),
        ("  code: {", "  web: {", ["key 'web' comes twice", "line 5"]),
        ("  web: {", "  global: {", ["'sources'", "'global'", "another"]),
        ("name: small", "name: [", ["is not YAML", "line"]),
        ("name: small\n", "", ["'name' is missing"]),
    ],
)
def test_a_wrong_field_is_named(tmp_path: Path, found: str, wrong: str, said: list[str]) -> None:
    message = refused(tmp_path, GOOD.replace(found, wrong, 1))
    assert [part for part in said if part not in message] == []


@pytest.mark.parametrize(
    ("dedup", "said"),
    [
        ("{threshold: 1.5}", ["'dedup.threshold'", "less than 1", "1.5"]),
        ("{threshold: 0}", ["'dedup.threshold'", "greater than 0", "found 0"]),
        ("{threshold: 0.01}", ["'dedup'", "J = 0.01", "more permutations"]),
        ("{keep: [source_order, longest]}", ["'dedup'", "end with 'id'"]),
        ("{keep: [id, id]}", ["'dedup'", "each key once"]),
        ("{bands: [9, 15]}", ["'dedup'", "(9, 15)", "128"]),
        ("{bands: [-9, -13]}", ["'dedup'", "-9", "at least 1"]),
        ("{scope: globl}", ["'dedup.scope'", "'global', 'local' or 'none'", "globl"]),
        ("{preset: slimpyjama}", ["'dedup.preset'", "'exact' or 'slimpajama'", "slimpyjama"]),
        ("{verify: perhaps}", ["'dedup.verify'", "'exact' or 'none'", "perhaps"]),
        ("{keep: [{highest: score, lowest: score}, id]}", ["'dedup.keep.0'", "{highest: FIELD} or {lowest: FIELD}"]),
        ("{keep: [{highest: score}, {highest: score}, id]}", ["'dedup'", "each key once"]),
        ("{gates: {override: {max_clusters: x}}}", ["dedup.gates.override", "max_clusters"]),
        ("{gates: {override: {max_cluster: ' '}}}", ["dedup.gates.override.max_cluster", "at least 1 character"]),
        ("{ngram: 0}", ["'dedup.ngram'", "greater than or equal to 1", "found 0"]),
        ("{treshold: 0.7}", ["'dedup.treshold'", "did you mean 'threshold'?"]),
    ],
)
def test_a_wrong_dedup_key_is_named(tmp_path: Path, dedup: str, said: list[str]) -> None:
    message = refused(tmp_path, GOOD + f"dedup: {dedup}\n")
    assert [part for part in said if part not in message] == []


def test_a_recipe_that_is_no_mapping_is_refused(tmp_path: Path) -> None:
    assert "expected a mapping" in refused(tmp_path, "- a\n- b\n")


def test_a_file_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"none\.yaml: No such file"):
        read(tmp_path / "none.yaml")


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "data.yaml"
    path.write_bytes(b"\xff\xfe\x00name")
    with pytest.raises(RecipeError, match="is not YAML"):
        read(path)


def test_rounded_weights_are_accepted(tmp_path: Path) -> None:
    path = tmp_path / "data.yaml"
    path.write_text(GOOD.replace("web: 0.9,", "web: 0.901,"))
    assert read(path).phases["first"].weights == {"web": 0.901, "code": 0.1}


def test_a_preset_fills_in_what_the_recipe_does_not_say(tmp_path: Path) -> None:
    path = tmp_path / "data.yaml"
    path.write_text(GOOD + "dedup: {preset: slimpajama, threshold: 0.7}\n")
    found = read(path)
    assert (found.dedup.verify, found.dedup.banding, found.dedup.threshold) == ("none", Bands(9, 13), 0.7)
    assert (found.holds_out_by, found.drops_short_last) == ("position", True)
    path.write_text(GOOD + "dedup: {verify: none, threshold: 0.7}\n")
    found = read(path)
    assert (found.dedup.banding, found.holds_out_by) == (optimal_bands(0.7, 128), "cluster")


def test_a_gate_is_overridden_on_top_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "data.yaml"
    path.write_text(GOOD + "dedup: {gates: {max_cluster: 5, override: {min_precision: known}}}\n")
    gates = read(path, override={"max_cluster": "copies"}).dedup.gates
    assert gates.override == {"max_cluster": "copies", "min_precision": "known"}
    assert gates.max_cluster == 5
    with pytest.raises(RecipeError, match=r"--override: .*max_custer"):
        read(path, override={"max_custer": "copies"})
