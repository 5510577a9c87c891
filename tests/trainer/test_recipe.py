from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from manifest.errors import RecipeError
from trainer.recipe import load_recipe

MakeRecipe = Callable[..., Path]

RECIPES = Path(__file__).parents[2] / "recipes"
SCHEDULE = {"shape": "linear", "warmup_steps": 2, "peak": 0.01, "end": 0.001}


def phase(**changes: Any) -> dict[str, Any]:
    return {"main": {"seq_len": 16, "tokens_per_step": 128, "schedule": SCHEDULE} | changes}


def message(file: Path) -> str:
    with pytest.raises(RecipeError) as error:
        load_recipe(file)
    return str(error.value)


def test_the_recipes_of_this_repository_are_read() -> None:
    found = {file.parent.name: load_recipe(file) for file in RECIPES.glob("*/train.yaml")}
    assert {name: recipe.name for name, recipe in found.items() if name != "bench"} == {
        name: name for name in found if name != "bench"
    }


def test_counts_may_be_written_with_a_unit(make_recipe: MakeRecipe) -> None:
    recipe = load_recipe(make_recipe(phases=phase(tokens_per_step="1.6k", seq_len=16)))
    assert recipe.phases["main"].tokens_per_step == 1600


def test_an_unknown_key_is_named_with_its_file_and_what_is_near(make_recipe: MakeRecipe) -> None:
    file = make_recipe(phases=phase(seq_length=16))
    assert message(file) == f"{file}: unknown key 'phases.main.seq_length'; did you mean 'seq_len'?"


def test_every_problem_has_a_line(make_recipe: MakeRecipe) -> None:
    lines = message(make_recipe(sise="tiny", phases=phase(seq_len="many"))).splitlines()
    assert len(lines) == 2
    assert "'phases.main.seq_len'" in lines[0]
    assert "'many'" in lines[0]
    assert "'sise'" in lines[1]
    assert "'size'" in lines[1]


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"phases": phase(packing="first_fit")}, "phases.main.packing"),
        ({"phases": phase(loss_on="question")}, "phases.main.loss_on"),
    ],
)
def test_what_this_version_cannot_do_is_refused(make_recipe: MakeRecipe, changes: dict[str, Any], key: str) -> None:
    said = message(make_recipe(**changes))
    assert f"'{key}'" in said
    assert "this version supports only" in said


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"optimizer": {"betas": [0.9, 1.5]}}, "optimizer.betas.1"),
        ({"optimizer": {"weight_decay": float("inf")}}, "optimizer.weight_decay"),
        ({"phases": phase(schedule=SCHEDULE | {"peak": float("inf")})}, "phases.main.schedule.peak"),
        ({"phases": phase(seq_len=1)}, "phases.main.seq_len"),
        ({"phases": phase(schedule=SCHEDULE | {"shape": "square"})}, "phases.main.schedule.shape"),
        ({"phases": phase(weight_decay=-0.1)}, "phases.main.weight_decay.peak"),
        ({"phases": phase(weight_decay="much")}, "phases.main.weight_decay"),
    ],
)
def test_what_no_run_could_use_is_refused(make_recipe: MakeRecipe, changes: dict[str, Any], key: str) -> None:
    assert f"'{key}'" in message(make_recipe(**changes))


def test_windows_must_fill_a_step(make_recipe: MakeRecipe) -> None:
    assert "tokens_per_step 120 is not a multiple of seq_len 16; 112 is" in message(
        make_recipe(phases=phase(tokens_per_step=120))
    )


def test_a_schedule_is_whole_or_continues_an_earlier_one(make_recipe: MakeRecipe) -> None:
    assert "needs peak, end" in message(make_recipe(phases=phase(schedule={"shape": "cosine"})))
    assert "not an earlier phase" in message(make_recipe(phases=phase(schedule={"continue": "later"})))
    both = {"continue": "main", "peak": 0.1}
    assert "remove peak" in message(make_recipe(phases=phase(schedule=both)))


WSD = SCHEDULE | {"shape": "wsd"}
KNOTS = [{"share": 0, "value": 0.1}, {"share": 0.5, "value": 0.2}]


@pytest.mark.parametrize(
    ("schedule", "said"),
    [
        (WSD, "either decay_share or decay_steps"),
        (WSD | {"decay_share": 0.1, "decay_steps": 5}, "either decay_share or decay_steps"),
        (SCHEDULE | {"decay_share": 0.1}, "shape linear has no decay_share"),
        ({"shape": "piecewise"}, "needs knots"),
        ({"shape": "piecewise", "knots": KNOTS, "peak": 0.1}, "shape piecewise has no peak"),
        ({"shape": "piecewise", "knots": KNOTS[::-1]}, "not in order"),
        ({"shape": "piecewise", "knots": [*KNOTS, {"step": 3, "value": 0.1}]}, "all knots by step, or all by share"),
        ({"shape": "piecewise", "knots": [{"value": 0.1}]}, "either step or share"),
        ({"shape": "constant", "peak": 0.1, "end": 0.1}, "remove end"),
        (SCHEDULE | {"warmup_steps": 0, "start": 0.1}, "give warmup_steps too"),
        (SCHEDULE | {"span": "run", "through": "main"}, "not both"),
        (SCHEDULE | {"through": "later"}, "neither that phase nor a later one (main)"),
    ],
)
def test_a_schedule_that_does_not_add_up_is_refused(
    make_recipe: MakeRecipe, schedule: dict[str, Any], said: str
) -> None:
    assert said in message(make_recipe(phases=phase(schedule=schedule)))


def test_a_weight_decay_continues_one_that_is_scheduled(make_recipe: MakeRecipe) -> None:
    second = phase()["main"] | {"weight_decay": {"continue": "main"}}
    assert "not an earlier phase with a weight_decay of its own" in message(
        make_recipe(phases=phase() | {"second": second})
    )
    decaying = phase(weight_decay=0.5) | {"second": second}
    assert load_recipe(make_recipe(phases=decaying)).phases["second"].weight_decay is not None


def test_schedules_of_older_recipes_keep_their_identity(make_recipe: MakeRecipe) -> None:
    (learned,) = load_recipe(make_recipe()).identified()["phases"].values()
    assert learned["schedule"] == {"continue": None, "span": None, **SCHEDULE}
    assert "weight_decay" not in learned


def test_a_number_is_a_constant_weight_decay(make_recipe: MakeRecipe) -> None:
    spelt = load_recipe(make_recipe(phases=phase(weight_decay={"shape": "constant", "peak": 0.5})))
    assert load_recipe(make_recipe(phases=phase(weight_decay=0.5))) == spelt
    assert load_recipe(make_recipe()).identified() != spelt.identified()


def test_a_key_that_stands_twice_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "train.yaml"
    file.write_text("name: a\nsize: tiny\nname: b\n")
    assert "'name' stands twice" in message(file)


def test_a_missing_file_and_broken_yaml_say_so(tmp_path: Path) -> None:
    assert "no such file" in message(tmp_path / "none.yaml")
    (tmp_path / "broken.yaml").write_text("name: [a\n")
    assert "not valid YAML" in message(tmp_path / "broken.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    assert "not valid YAML" in message(tmp_path / "binary.yaml")
    (tmp_path / "keys.yaml").write_text("? [a]\n: 1\n")
    assert "no plain value" in message(tmp_path / "keys.yaml")
    assert str(tmp_path) in message(tmp_path)


def test_how_a_run_is_carried_out_is_not_what_it_is(make_recipe: MakeRecipe) -> None:
    one = load_recipe(make_recipe(engine={"zero": 0, "micro_batch_tokens": 16}, save={"keep_full": 1})).identified()
    other = load_recipe(make_recipe(engine={"zero": 1, "micro_batch_tokens": 64})).identified()
    assert one == other
    assert one != load_recipe(make_recipe(phases=phase(seq_len=32))).identified()


@pytest.mark.parametrize(
    ("save", "own", "said"),
    [
        ({"count": 10}, {"every_steps": 5}, "phase 'main' has a `save` of its own"),
        ({}, {}, "found no pace"),
        ({}, {"every_steps": 5, "count": 2}, "found every_steps and count"),
        ({}, {"keep_full": 3}, "unknown key 'phases.main.save.keep_full'"),
    ],
)
def test_a_pace_of_saves_that_says_nothing_or_two_things_is_refused(
    make_recipe: MakeRecipe, save: dict[str, int], own: dict[str, int], said: str
) -> None:
    assert said in message(make_recipe(save=save, phases=phase(save=own)))


def test_when_a_phase_saves_is_no_part_of_what_makes_a_run(make_recipe: MakeRecipe) -> None:
    plain, paced = (load_recipe(make_recipe(phases=phase(**own))) for own in ({}, {"save": {"every_steps": 5}}))
    assert paced.phases["main"].save != plain.phases["main"].save
    assert paced.identified() == plain.identified()
    assert "save" not in plain.model_dump(mode="json")["phases"]["main"]  # as recipes of runs already made
