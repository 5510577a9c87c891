"""A study: what its grid expands to, what it refuses, and what its table says of its arms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from study_fixtures import PEAK, WEIGHTS, study_file

from gateway import cli
from gateway.commands.study import settings_of
from gateway.study.arms import Outcome, require_equal_tokens
from gateway.study.grid import Study, StudyRecipe, load_study
from gateway.study.pages import edges
from gateway.study.results import ALL, Cell, Documents, Figure, cells_of, difference
from manifest.errors import InputError, RecipeError

RECIPES = Path(__file__).parents[2] / "recipes"
STUDIES = sorted(file for file in RECIPES.glob("*/study*.yaml") if "\naxes:" in file.read_text())


def mix(a: float, tokens: int = 4000) -> dict[str, Any]:
    return {WEIGHTS: {"weights": {"a": a, "b": 1 - a}, "tokens": tokens}}


def load(directory: Path, **fields: Any) -> Study:
    return load_study(study_file(directory, **fields))


def test_a_grid_is_every_combination_and_every_seed(tmp_path: Path) -> None:
    axes = {"peak": {"field": PEAK, "values": [0.01, 0.001]}, "mix": {"choices": {"1:3": mix(0.25), "1:1": mix(0.5)}}}
    arms = load(tmp_path, axes=axes, seeds=[3, 4]).arms
    assert len(arms) == 8
    assert arms[1].name == "peak 0.01, mix 1:3, seed 4"
    found = {(a.train["phases"]["only"]["schedule"]["peak"], a.data["phases"]["only"]["weights"]["a"]) for a in arms}
    assert found == {(0.01, 0.25), (0.01, 0.5), (0.001, 0.25), (0.001, 0.5)}


@pytest.mark.parametrize(
    ("field", "said"),
    [
        ("train.phases.only.schedule.peek", r"did you mean 'peak'"),
        ("train.phases.onyl.schedule.peak", r"no field 'onyl'; did you mean 'only'"),
        ("train.optimiser.clip", r"no field 'optimiser'; did you mean 'optimizer'"),
        ("trian.size", r"begins with 'data\.' or 'train\.'"),
        ("train.size.peak", r"'size' is 'tiny', which has no fields"),
    ],
)
def test_an_unknown_field_of_an_axis_is_named_with_the_nearest(tmp_path: Path, field: str, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        load(tmp_path, axes={"peak": {"field": field, "values": [1, 2]}})


def test_a_field_that_the_recipe_leaves_out_can_be_an_axis(tmp_path: Path) -> None:
    arms = load(tmp_path, axes={"peak": {"field": "train.optimizer.clip", "values": [1.0, 0.5]}}).arms
    assert [arm.train["optimizer"] for arm in arms] == [{"clip": 1.0}, {"clip": 0.5}]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"rate": "paek"}, r"no axis 'paek'; did you mean 'peak'"),
        ({"axes": {"peak": {"field": PEAK, "values": [0.01, "1e-3"]}}}, r"axis 'peak' has '1e-3'; expected.*1\.0e-3"),
        ({"axes": {"peak": {"choices": {"a": {PEAK: 0.1}}}}}, r"axis 'peak' has choices; expected values"),
        ({"seeds": [1, 1]}, "a seed stands twice"),
        ({"axes": {"peak": {"field": PEAK, "values": [0.01, 0.01]}}}, "a value stands twice"),
        ({"axes": {"peak": {"field": PEAK, "values": [-1, 1]}}}, r"peak -1: train.*peak"),
        ({"set": {PEAK: 0.5}, "axis": {}}, r"unknown key 'axis'; did you mean 'axes'"),
        (
            {"axes": {n: {"field": PEAK, "values": [0.01, 0.001]} for n in ("peak", "again")}},
            r"two arms are the same.*do two axes set one field",
        ),
    ],
)
def test_a_study_that_makes_no_sense_is_refused(tmp_path: Path, fields: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        load(tmp_path, **fields)


def test_arms_of_unequal_tokens_are_refused_with_their_figures(tmp_path: Path) -> None:
    study = load(tmp_path)
    require_equal_tokens(study, [40960, 40960 + 2047], 2048)  # under a step
    with pytest.raises(InputError, match=r"(?s)40,960  peak 0\.01, seed 0.*43,008  peak 0\.001"):
        require_equal_tokens(study, [40960, 43008], 2048)


def test_a_dry_run_lists_the_arms_with_their_tokens_and_asks_no_service(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = study_file(tmp_path, tokens="40k")
    with pytest.raises(SystemExit) as ended:
        cli.main(["study", str(file), "--dry-run", "--server", "http://127.0.0.1:9"])
    assert ended.value.code == 2  # the size says no vocabulary
    sizes = {"shared": {"tiny": {"layers": 1, "width": 16, "heads": 2, "filter": 32, "vocab_size": 300}}}
    (tmp_path / "sizes.yaml").write_text(yaml.safe_dump(sizes))
    with pytest.raises(SystemExit) as ended:
        cli.main(["study", str(file), "--dry-run", "--server", "http://127.0.0.1:9"])
    assert ended.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert "40k tokens" in lines[0]
    assert "peak 0.01, seed 0" in lines[0]


def test_a_value_given_with_set_is_read_as_a_recipe_is(tmp_path: Path) -> None:
    settings = settings_of(["data.tokenizer={extend: {base: b, add: 2k, on: a}}", f"{PEAK}=1.0e-3"])
    axes = {"clip": {"field": "train.optimizer.clip", "values": [1.0, 0.5]}}
    file = study_file(tmp_path, rate="clip", axes=axes)
    arm = load_study(file, settings).arms[0]
    assert arm.data["tokenizer"] == {"extend": {"base": "b", "add": "2k", "on": "a"}}  # `on` is no truth value
    assert arm.train["phases"]["only"]["schedule"]["peak"] == 0.001


def test_some_seeds_of_a_study_are_a_study(tmp_path: Path) -> None:
    study = load(tmp_path, seeds=[3, 4])
    assert study.seeds == (3, 4)
    assert [arm.name for arm in study.of_seeds([4]).arms] == ["peak 0.01, seed 4", "peak 0.001, seed 4"]
    with pytest.raises(InputError, match=r"study rates has no seed 5; it has 3, 4"):
        study.of_seeds([4, 5])


@pytest.mark.parametrize("file", STUDIES, ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_the_studies_of_the_repository_are_read(file: Path) -> None:
    more = {"train.start_from": "runs/base-1"}
    study = load_study(file, more)
    assert {arm.train["start_from"] for arm in study.arms} == {"runs/base-1"}
    assert len(study.arms) == len({tuple(arm.labels.values()) for arm in study.arms}) * len(study.recipe.seeds)
    if study.recipe.rate is not None:
        assert len({arm.labels[study.recipe.rate] for arm in study.arms}) >= 3


def test_a_baseline_wants_a_model_to_start_from(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"baseline: the arm starts from no model"):
        load(tmp_path, baseline=True)


def documents(*, seed: int, better: float = 0.0) -> Documents:
    rng = np.random.default_rng(seed)
    common = np.random.default_rng(9).uniform(1, 3, 40)
    return {f"d{i}": ("a" if i % 2 else "b", 100.0, 100 * (common[i] - better) + rng.normal()) for i in range(40)}


def test_a_paired_difference_is_surer_than_the_scores_it_is_between() -> None:
    def cell(of: Documents) -> Cell:
        value = sum(bits for _, _, bits in of.values()) / sum(size for _, size, _ in of.values())
        return Cell({}, "", None, (0,), 1, {ALL: Figure(value, None, None, None, 40)}, of)

    found = difference(cell(documents(seed=1, better=0.1)), documents(seed=2), ALL)
    assert found is not None
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.value < found.high < 0
    assert found.value == pytest.approx(-0.1, abs=0.01)
    assert found.high - found.low < 0.02  # the documents themselves differ by 2
    other = {f"x{i}": row for i, row in enumerate(documents(seed=1).values())}
    assert difference(cell(documents(seed=1)), other, ALL) is None


def test_a_best_rate_at_an_edge_of_the_grid_is_told() -> None:
    def line(name: str, best: int) -> list[Cell]:
        return [Cell({}, name, rate, (0,), 1, {}, {}, best=n == best) for n, rate in enumerate((0.1, 0.2, 0.4))]

    assert edges([*line("low", 0), *line("within", 1), *line("high", 2)]) == [
        "low: 0.1, of 0.1 to 0.4",
        "high: 0.4, of 0.1 to 0.4",
    ]
    assert edges([Cell({}, "alone", 0.1, (0,), 1, {}, {}, best=True)]) == []


def test_a_cell_whose_arm_failed_keeps_its_place_and_is_never_the_best(tmp_path: Path) -> None:
    study = load(tmp_path)
    outcomes = [Outcome(arm, 10, failure="run-1: broken") for arm in study.arms]
    cells = cells_of(StudyRecipe.model_validate(study.recipe), outcomes, {})
    assert [(cell.figures, cell.best) for cell in cells] == [({}, False)] * 2
    assert cells[0].failures == ("peak 0.01, seed 0: run-1: broken",)
