"""The coordinate check on recipes that are right, and on one that is wrong: it passes those and finds this."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from manifest.errors import RecipeError
from trainer import cli, coords
from trainer.coords import MUP, STANDARD, CheckOptions, check, verdict
from trainer.optimizer import parameter_groups
from trainer.recipe import load_recipe

RECIPES = Path(__file__).parents[2] / "recipes"
SMALL = CheckOptions(widths=(32, 64, 128, 256), steps=3, seeds=1)


@pytest.mark.parametrize("name", ["btlm", "crystal", "slimpajama_dc"])
def test_with_mup_activations_do_not_depend_on_the_width_and_without_they_do(name: str) -> None:
    found = check(load_recipe(RECIPES / name / "train.yaml"), SMALL)
    assert found.passed
    assert verdict(found) is None
    flat, grown = (found.parametrisations[kind].slopes for kind in (MUP, STANDARD))
    learned = {place: [abs(slope) for slope in of_step[1:]] for place, of_step in flat.items() if place != "logits"}
    assert all(slope <= 0.2 for of_step in learned.values() for slope in of_step)
    assert grown["feed-forward output"][-1] > 0.5
    # Untrained, hidden activations of both: as they are initialised, √(width) apart.
    assert flat["queries"][0] == pytest.approx(0.0, abs=0.05)
    assert grown["queries"][0] == pytest.approx(0.5, abs=0.05)


def test_a_rate_that_is_not_divided_by_the_width_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def undivided(*arguments: Any) -> list[dict[str, Any]]:
        return [group | {"lr_multiplier": 1.0} for group in parameter_groups(*arguments)]

    monkeypatch.setattr(coords, "parameter_groups", undivided)
    found = check(load_recipe(RECIPES / "btlm" / "train.yaml"), SMALL)
    said = verdict(found)
    assert said is not None
    assert "with muP activations depend on the width" in said


def test_a_check_needs_four_widths_mup_and_whole_heads(make_recipe: Callable[..., Path]) -> None:
    recipe = load_recipe(make_recipe())
    with pytest.raises(RecipeError, match="at least 4"):
        check(recipe, CheckOptions(widths=(32, 64, 128, 64)))
    with pytest.raises(RecipeError, match="need a multiple of 8"):
        check(recipe, CheckOptions(widths=(32, 64, 128, 100), steps=1, seeds=1))
    plain = recipe.model_copy(update={"architecture": recipe.architecture.model_copy(update={"mup": None})})
    with pytest.raises(RecipeError, match=r"architecture\.mup is missing"):
        check(plain, SMALL)


@pytest.mark.parametrize(("rate", "code"), [("0.001", 0), ("0.2", 1)])
def test_the_exit_code_is_the_verdict_and_the_figures_are_there_either_way(
    rate: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "coords"
    flags = ["--widths", "32,64,128,256", "--steps", "3", "--seeds", "1", "--rate", rate, "--out", str(out)]
    monkeypatch.setattr("sys.argv", ["trainer", "coords", str(RECIPES / "btlm" / "train.yaml"), *flags])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == code
    assert capsys.readouterr().out == f"{out}\n"
    assert json.loads((out / "coords.json").read_text())["passed"] is (code == 0)
    assert (out / "coords.png").read_bytes().startswith(b"\x89PNG")
