"""A run in phases that train different parts, on two workers at each stage of ZeRO, and gone on with on one worker at
another. Everything happens in two processes, which are slow to start.
"""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path
from typing import Any

import pytest
from tests.trainer.conftest import MakeMixture, MakeRecipe, never, stop_after

from manifest.checkpoint import Checkpoint
from manifest.store import LocalStore
from trainer import loop
from trainer.engine import join, leave
from trainer.fit import FitOptions, plan_run
from trainer.launch import Workers
from trainer.place import Place, free_port
from trainer.run import METRICS, Run, enter, read_run
from trainer.sizes import resolve

PHASE = {"seq_len": 16, "tokens_per_step": 128, "schedule": {"shape": "constant", "peak": 0.01}, "optimizer": "reset"}
CHOICES = {
    "rows": {"new_rows": 60},
    "tables": "embeddings",
    "some": {"pattern": "layers.0.feedforward.*"},
    "low": {"lora": {"rank": 3, "alpha": 6}},
    "rest": "all",
}
DRAWS = {name: {"a": 4} for name in CHOICES}
STOPS = (4, 7)
"""Between two phases, and within LoRA's."""
STAGES = (1, 3)


def work(rank: int, port: int, root: Path, names: list[str]) -> None:
    """A rank: every run, some to the end, some to where they are stopped."""
    join(Place(rank=rank, world=2, local_rank=rank, address="127.0.0.1", port=port))
    for name in names:
        run = read_run(root / "runs" / name)
        stop = name.rpartition("-")[2]
        loop.train(LocalStore(root), run, stop_after(int(stop)) if stop.isdigit() else never)
    leave()


@pytest.fixture
def store(tmp_path: Path, make_mixture: MakeMixture, make_recipe: MakeRecipe) -> LocalStore:
    """Runs of ten steps on two workers: one whole and some stopped at each stage."""
    mixture = make_mixture(DRAWS)
    store = LocalStore(tmp_path / "out")
    names = []
    for zero in STAGES:
        phases = {name: PHASE | {"trainable": what} for name, what in CHOICES.items()}
        recipe = make_recipe(phases=phases, engine={"zero": zero, "micro_batch_tokens": 64})
        for name in (f"zero{zero}-through", *(f"zero{zero}-{stop}" for stop in STOPS)):
            options = FitOptions(
                recipe=resolve(recipe, None),
                mixture=mixture.uri,
                out=store.uri,
                workers=Workers(None, 1),
                name=name,
            )
            enter(store, plan_run(options, store))
            names.append(name)
    spawn, port = multiprocessing.get_context("spawn"), free_port()
    ranks = [spawn.Process(target=work, args=(rank, port, store.root, names)) for rank in range(2)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(240)
    assert [process.exitcode for process in ranks] == [0, 0]
    return store


def losses(store: LocalStore, run: Run) -> list[float]:
    return [json.loads(line)["loss"] for line in (store.root / run.path / METRICS).read_text().splitlines()]


def frozen(store: LocalStore, run: Run, step: int) -> Any:
    record = store.manifest(run.checkpoint_path(step))
    assert isinstance(record, Checkpoint)
    return record.state.get("frozen")


@pytest.mark.slow
def test_it_goes_on_with_other_workers_at_another_stage(store: LocalStore, process_group: None) -> None:
    whole = read_run(store.root / "runs" / "zero1-through")
    expected = losses(store, whole)
    assert len(expected) == 10
    for zero in STAGES:
        through = read_run(store.root / "runs" / f"zero{zero}-through")
        assert losses(store, through) == pytest.approx(expected, rel=1e-5)
        for stop in STOPS:
            run = read_run(store.root / "runs" / f"zero{zero}-{stop}")
            assert len(losses(store, run)) == stop
            engine = run.recipe.engine.model_copy(update={"zero": {1: 3, 3: 0}[zero]})
            recipe = run.recipe.model_copy(update={"engine": engine})
            loop.train(store, run.model_copy(update={"recipe": recipe}), never)
            assert losses(store, run) == pytest.approx(expected, rel=1e-5)
            assert frozen(store, run, 2) == frozen(store, whole, 2)
