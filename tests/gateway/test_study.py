"""A study: what its grid expands to, what it refuses, and that it goes on where it was, against the real service."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from served import Served, working
from work_fixtures import data_recipe, eval_recipe, train_recipe, write_raw

from gateway import cli
from gateway.commands.study import settings_of
from gateway.study.arms import Outcome, require_equal_tokens
from gateway.study.grid import Study, StudyRecipe, load_study
from gateway.study.pages import edges
from gateway.study.results import ALL, Cell, Documents, Figure, cells_of, difference
from manifest.errors import InputError, RecipeError

PEAK = "train.phases.only.schedule.peak"
WEIGHTS = "data.phases.only"
RECIPES = Path(__file__).parents[2] / "recipes"
STUDIES = sorted(file for file in RECIPES.glob("*/study*.yaml") if "\naxes:" in file.read_text())


def study_file(directory: Path, **fields: Any) -> Path:
    """A study over the tiny recipes: two peak rates, unless `fields` say otherwise."""
    sizes = {"shared": {"tiny": {"layers": 1, "width": 16, "heads": 2, "filter": 32}}}
    recipes = {"data": data_recipe(), "train": train_recipe(), "eval": eval_recipe(), "sizes": sizes}
    for name, content in recipes.items():
        (directory / f"{name}.yaml").write_text(yaml.safe_dump(content))
    study = {
        "name": "rates",
        **{part: f"{part}.yaml" for part in ("data", "train", "eval")},
        "rate": "peak",
        "axes": {"peak": {"field": PEAK, "values": [0.01, 0.001]}},
        **fields,
    }
    file = directory / "study.yaml"
    file.write_text(yaml.safe_dump(study, sort_keys=False))
    return file


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
    rates = {arm.labels["peak"] for arm in study.arms}
    assert len(study.arms) == len({tuple(arm.labels.values()) for arm in study.arms}) * len(study.recipe.seeds)
    assert len(rates) >= 3


def test_no_service_is_one_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["study", str(study_file(tmp_path)), "--server", "http://127.0.0.1:9"])
    assert ended.value.code == 1
    assert "127.0.0.1:9 does not answer" in capsys.readouterr().err


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


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    write_raw(tmp_path / "raw")
    started = Served(tmp_path)
    yield started
    started.close()


def run(served: Served, file: Path, *flags: str) -> int:
    words = ["study", str(file), "--raw", str(served.home / "raw"), "--out", str(served.home / "out")]
    with pytest.raises(SystemExit) as ended:
        cli.main([*words, "--server", served.url, *flags])
    return int(str(ended.value.code))


@pytest.mark.slow
def test_a_study_is_carried_out_and_the_same_command_finds_it_done(
    served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    file = study_file(served.home, seeds=[0, 1])
    with working(served):
        assert run(served, file) == 0, capsys.readouterr().err
    out, err = capsys.readouterr()
    assert out == f"{served.home / 'out' / 'study.md'}\n"
    assert "study.md: 2 of 4 arms" in err  # after the first seed
    text = (served.home / "out" / "study.md").read_text()
    assert text.count("★") == 2  # the note, and one best
    made = json.loads((served.home / "out" / "study.json").read_text())
    assert [cell["seeds"] for cell in made["cells"]] == [[0, 1], [0, 1]]
    best = min(made["cells"], key=lambda cell: cell["figures"]["all"]["value"])
    assert best["best"]
    assert best["labels"] == {"peak": "0.01"}  # a hundredth is not too much for a few steps, a thousandth too little
    assert best["figures"]["all"]["low"] < best["figures"]["all"]["value"] < best["figures"]["all"]["high"]
    assert (served.home / "out" / "study.png").read_bytes().startswith(b"\x89PNG")

    assert run(served, file) == 0  # nobody works, and nobody needs to
    assert capsys.readouterr().err.count("runs: 2, 2 of them ended before") == 2
    assert (served.home / "out" / "study.md").read_text() == text


@pytest.mark.slow
def test_what_the_arms_start_from_is_scored_over_their_held_out_text(
    served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    first = study_file(served.home, axes={"peak": {"field": PEAK, "values": [0.01]}})
    with working(served):
        assert run(served, first) == 0, capsys.readouterr().err
        (base,) = (served.home / "store" / "runs").iterdir()
        start = {"train.start_from": f"runs/{base.name}", "train.size": None, "data.name": "other"}
        file = study_file(served.home, name="tuned", baseline=True, best_by="b", set=start)
        assert run(served, file) == 0, capsys.readouterr().err
    out = served.home / "out"
    made = json.loads((out / "study.json").read_text())
    for cell in made["cells"]:
        less = cell["less_baseline"]["all"]
        assert less["low"] < less["value"] < less["high"] < 0  # the base has read little, and the arms read it again
    text = (out / "study.md").read_text()
    assert f"| 0.01 | {made['cells'][0]['less_baseline']['all']['value']:+.4f} [" in text
    assert "reports of the baseline: 1" in capsys.readouterr().err
    best = min(made["cells"], key=lambda cell: cell["figures"]["b"]["value"])
    assert best["best"]
    assert "the best of its line by b." in text

    assert run(served, study_file(served.home, name="tuned", best_by="c", set=start)) == 2
    assert "best_by: no held-out text of a source 'c'; of a, b" in capsys.readouterr().err


def test_a_baseline_wants_a_model_to_start_from(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"baseline: the arm starts from no model"):
        load(tmp_path, baseline=True)


def test_an_arm_that_failed_is_told_with_its_log_and_tried_again_only_when_asked(
    served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    holes = {"sources": {"a": {"files": "a/*", "text": "no_such_field"}, "b": {"files": "b/*"}}}
    file = study_file(served.home, set={f"data.{name}": value for name, value in holes.items()})
    with working(served):
        assert run(served, file) == 1
    said = capsys.readouterr().err
    assert "no_such_field" in said
    assert "winnow logs build-" in said
    assert run(served, file) == 1  # told again, nobody having worked
    assert "builds: 1, 1 of them ended before" in capsys.readouterr().err


@pytest.mark.slow
def test_an_arm_that_fails_leaves_the_others_and_is_tried_again_only_when_asked(
    served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    axes = {"peak": {"field": PEAK, "values": [0.01, 1e30]}}  # the second is no number after a step
    file = study_file(served.home, axes=axes)
    out = served.home / "out"
    with working(served):
        assert run(served, file) == 1
    said = capsys.readouterr().err
    assert "1 of 2 arms failed" in said
    assert "peak 1e+30, seed 0: run-" in said
    cells = json.loads((out / "study.json").read_text())["cells"]
    assert [(cell["labels"]["peak"], cell["best"], len(cell["failures"])) for cell in cells] == [
        ("0.01", True, 0),
        ("1e+30", False, 1),
    ]
    assert "Failed" in (out / "study.html").read_text()
    assert run(served, file) == 1  # told again, nobody having worked
    assert "runs: 2, 2 of them ended before" in capsys.readouterr().err
    with working(served):
        assert run(served, file, "--retry") == 1
    assert "runs: 2, 1 of them ended before" in capsys.readouterr().err


@pytest.mark.slow
def test_a_study_that_was_interrupted_goes_on_with_the_same_command(
    served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    file = study_file(served.home)
    command = [sys.executable, "-m", "gateway.cli", "study", str(file), "--raw", str(served.home / "raw")]
    with working(served):
        asked = subprocess.Popen([*command, "--server", served.url], stderr=subprocess.PIPE, text=True)
        assert asked.stderr is not None
        for line in asked.stderr:
            if line.startswith("runs: 2, 0 of them"):
                asked.send_signal(signal.SIGINT)
        assert asked.wait() == 130
        assert run(served, file) == 0, capsys.readouterr().err
    made = json.loads((served.home / "out" / "study.json").read_text())
    assert [cell["seeds"] for cell in made["cells"]] == [[0], [0]]


def test_a_service_that_wants_a_key_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_raw(tmp_path / "raw")
    served = Served(tmp_path, keys=True)
    try:
        assert run(served, study_file(tmp_path)) == 2
    finally:
        served.close()
    assert "key" in capsys.readouterr().err


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
