"""The losses of 20 steps of each recipe in small: what a refactor may not move.

Each recipe has its own architecture, optimizer and schedules, at a size of two layers, with windows 64 times shorter,
over patterned tokens, in fp32. Where a change is meant to move them, they are written anew by
`pytest tests/trainer/test_golden.py --rewrite-golden`; the diff of golden/*.json then says by how much.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from manifest.artifact import Opened
from manifest.store import LocalStore
from trainer.fit import FitOptions, plan_run
from trainer.launch import Workers
from trainer.loop import train
from trainer.recipe import TrainRecipe, load_recipe
from trainer.run import METRICS, enter
from trainer.sizes import resolve_recipe

RECIPES = Path(__file__).parents[2] / "recipes"
GOLDEN = Path(__file__).parent / "golden"
STEPS = 20
SHORTER = 64
TOKENS_PER_STEP = 512
BLOCK = 128
TOLERANCE = 1e-4
"""Relative. Other processors and versions of torch add in another order; other micro-batches and another stage of ZeRO
move these losses by up to 7e-6."""
SIZE = {"layers": 2, "width": 32, "heads": 2, "filter": 85, "tokens_per_step": TOKENS_PER_STEP, "warmup_steps": 3}

pytestmark = pytest.mark.usefixtures("process_group")


def shortened(recipe: TrainRecipe) -> TrainRecipe:
    phases = {
        name: phase.model_copy(update={"seq_len": phase.seq_len // SHORTER}) for name, phase in recipe.phases.items()
    }
    in_fp32 = recipe.engine.model_copy(update={"precision": "fp32"})
    return recipe.model_copy(update={"phases": phases, "engine": in_fp32})


def steps_of(recipe: TrainRecipe) -> dict[str, int]:
    """STEPS shared out as the recipe's own steps are, at least two a phase; the first takes what is left."""
    first, *others = recipe.phases
    reference = {name: phase.reference_steps or 1 for name, phase in recipe.phases.items()}
    shared = {name: max(2, STEPS * reference[name] // sum(reference.values())) for name in others}
    return {first: STEPS - sum(shared.values())} | shared


def losses(recipe: TrainRecipe, make_mixture: Callable[..., Opened], directory: Path) -> list[float]:
    blocks = {name: steps * TOKENS_PER_STEP // BLOCK for name, steps in steps_of(recipe).items()}
    draws = {name: {"a": count // 2, "b": count - count // 2} for name, count in blocks.items()}
    mixture = make_mixture(draws, block_tokens=BLOCK, tokens=4000)
    store = LocalStore(directory)
    resolved = resolve_recipe(shortened(recipe), {"shared": {"golden": SIZE}}, "golden")
    run = enter(store, plan_run(FitOptions(resolved, mixture.uri, store.uri, Workers(None, 1)), store))
    train(store, run, lambda: False)
    return [json.loads(line)["loss"] for line in (store.root / run.path / METRICS).read_text().splitlines()]


@pytest.mark.parametrize("name", ["btlm/train", "crystal/train", "slimpajama_dc/train", "slimpajama_dc/train_ptwd"])
def test_a_recipe_learns_as_it_did(
    name: str, make_mixture: Callable[..., Opened], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    recipe = load_recipe(RECIPES / f"{name}.yaml")
    found = losses(recipe, make_mixture, tmp_path / "out")
    golden = GOLDEN / f"{recipe.name}.json"
    if request.config.getoption("--rewrite-golden"):
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(json.dumps([round(loss, 7) for loss in found], indent=0) + "\n")
    assert found == pytest.approx(json.loads(golden.read_text()), rel=TOLERANCE)
    assert len(found) == STEPS
