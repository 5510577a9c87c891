"""What phases train and what it takes, from runs that are written down."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.trainer.conftest import MakeMixture, MakeRecipe

from manifest.errors import InputError, NotAnArtifact
from manifest.store import LocalStore
from trainer.compare import costs, table
from trainer.fit import FitOptions, plan_run
from trainer.launch import Workers
from trainer.run import METRICS, enter
from trainer.sizes import resolve

PHASE = {"seq_len": 16, "tokens_per_step": 128, "schedule": {"shape": "constant", "peak": 0.01}, "optimizer": "reset"}
LORA = {"lora": {"rank": 2, "alpha": 4, "targets": "query"}}
Make = Callable[..., Path]


@pytest.fixture
def run(tmp_path: Path, make_mixture: MakeMixture, make_recipe: MakeRecipe) -> Make:
    """A run of two phases whose steps took 2 and 1 seconds, and 4 and 3 MB, as if it had been trained."""

    def make(name: str, *trainables: Any, trained: bool = True) -> Path:
        phases = {f"p{n}": PHASE | {"trainable": what} for n, what in enumerate(trainables)}
        mixture = make_mixture({phase: {"a": 4} for phase in phases}, name=name)
        store = LocalStore(tmp_path / "out")
        recipe = resolve(make_recipe(phases=phases), None)
        options = FitOptions(recipe, mixture.uri, store.uri, Workers(None, 1), name=name)
        made = enter(store, plan_run(options, store))
        rows = [
            {
                "step": 2 * number + step,
                "phase": phase,
                "loss": 5.0 - number - step / 10,
                "seconds": 2.0 - number,
                "tokens_per_s": 128 / (2 - number),
                "memory_bytes": (4 - number) * 10**6,
            }
            for number, phase in enumerate(phases)
            for step in range(2)
        ]
        if trained:
            lines = "".join(json.dumps(row) + "\n" for row in rows)
            (store.root / made.path / METRICS).write_text(lines)
        return store.root / made.path

    return make


def test_a_phase_has_its_own_parameters_memory_time_and_loss(run: Make) -> None:
    full, low = costs([run("one", "all", LORA)])
    shape_parameters = 128 * 16 + 2 * (4 * 16 * 17 + 2 * 40 * 17 + 16 * 41 + 4 * 16) + 2 * 16
    assert (full.trained, full.parameters, full.share) == (shape_parameters, shape_parameters, 1.0)
    assert (low.trained, low.parameters) == (2 * 2 * (16 + 16), shape_parameters + 128)
    # fp32 at stage 1, one worker: 20 bytes of what is trained, with AdamW's own copy; 4 of what is frozen.
    assert (full.state_bytes, low.state_bytes) == (20 * shape_parameters, 20 * 128 + 4 * shape_parameters)
    assert (full.peak_bytes, low.peak_bytes) == (4_000_000, 3_000_000)
    assert (full.seconds, low.seconds, full.tokens_per_s, low.tokens_per_s) == (4.0, 2.0, 64.0, 128.0)
    assert (full.loss, low.loss) == (4.9, 3.9)


@pytest.mark.parametrize(("measured", "per_parameter"), [("fp32", 20), ("bf16", 16)])
def test_states_of_auto_are_those_of_the_precision_that_it_was(
    tmp_path: Path, make_mixture: MakeMixture, make_recipe: MakeRecipe, measured: str, per_parameter: int
) -> None:
    engine = {"zero": 1, "precision": "auto", "micro_batch_tokens": 64}
    recipe = resolve(make_recipe(phases={"p": PHASE}, engine=engine), None)
    store = LocalStore(tmp_path / "out")
    options = FitOptions(recipe, make_mixture({"p": {"a": 4}}).uri, store.uri, Workers(None, 1))
    made = enter(store, plan_run(options, store))
    row = {"step": 0, "phase": "p", "loss": 1.0, "seconds": 1.0, "tokens_per_s": 1.0}
    (store.root / made.path / METRICS).write_text(json.dumps(row) + "\n")
    manifest = store.root / made.checkpoint_path(0) / "manifest.json"
    manifest.parent.mkdir(parents=True)
    manifest.write_text(json.dumps({"producer": {"measured": {"workers": 1, "precision": measured}}}))
    (cost,) = costs([store.root / made.path])
    assert cost.state_bytes == per_parameter * cost.parameters


def test_the_table_holds_phases_of_several_runs_against_the_one_that_trains_everything(run: Make) -> None:
    lines = list(table(costs([run("low", LORA), run("full", "all")])))
    assert len(lines) == 4
    assert "| low | p0 | lora of rank 2 | 128 of 8,544 (1.50 %) |" in lines[2]
    assert (
        "| 8,416 of 8,416 (100.00 %) | 0.2 MB (100 %) | 4.0 MB (100 %) | 64 (100 %) | 4 s, 2 steps | 4.9000 |"
        in lines[3]
    )


def test_what_is_no_run_or_has_no_step_says_so(run: Make, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has done no step; train it first"):
        costs([run("new", "all", trained=False)])
    with pytest.raises(NotAnArtifact, match="is not a run"):
        costs([tmp_path])
