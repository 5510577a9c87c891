from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from manifest.artifact import Opened
from manifest.errors import RecipeError
from trainer.dry_run import dry_run
from trainer.fit import FitOptions, ask
from trainer.launch import Workers
from trainer.sizes import resolve

MakeMixture = Callable[..., Opened]
MakeRecipe = Callable[..., Path]

WSD = {"shape": "wsd", "warmup_steps": 2, "peak": 0.01, "end": 0.001, "decay_steps": 2}


def options(recipe: Path, mixture: Opened, out: Path) -> FitOptions:
    return FitOptions(recipe=resolve(recipe, None), mixture=mixture.uri, out=str(out), workers=Workers(None, 1))


def phase(**schedule: object) -> dict[str, object]:
    return {"main": {"seq_len": 16, "tokens_per_step": 128, "weight_decay": 0.5, "schedule": WSD | schedule}}


def test_a_dry_run_says_what_the_schedules_come_to_and_makes_nothing(
    make_mixture: MakeMixture, make_recipe: MakeRecipe, tmp_path: Path
) -> None:
    asked = options(make_recipe(phases=phase()), make_mixture({"main": {"a": 16}}), tmp_path / "out")
    said = list(dry_run(asked))
    assert said[0] == f"run {ask(asked).name}, seed 0"
    (rate,) = (line for line in said if "learning rate" in line)
    assert "wsd, 0.01 to 0.001, over steps 0 to 8 (2 of warm-up from 0, 2 of decay" in rate
    assert "at its last 0.001" in rate
    assert any("weight decay 0.5" in line for line in said)
    assert not any("warning" in line for line in said)
    assert not (tmp_path / "out").exists()


def test_a_dry_run_warns_of_a_decay_that_has_no_room(
    make_mixture: MakeMixture, make_recipe: MakeRecipe, tmp_path: Path
) -> None:
    mixture = make_mixture({"main": {"a": 16}})
    said = list(dry_run(options(make_recipe(phases=phase(decay_steps=7)), mixture, tmp_path)))
    assert "its schedule has 8: the learning rate decays in 6" in said[-1]


def test_a_dry_run_refuses_what_fit_would_refuse(
    make_mixture: MakeMixture, make_recipe: MakeRecipe, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match="phase 'main' is not in the mixture"):
        list(dry_run(options(make_recipe(phases=phase()), make_mixture({"other": {"a": 2}}), tmp_path)))
