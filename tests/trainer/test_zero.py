"""Two workers at every stage of ZeRO, and state that goes from each stage to each other, against one worker at stage 1.

Everything happens in two processes, which are slow to start.
"""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from trainer.data.fim import COUNTS
from trainer.data.loader import StepBatch
from trainer.engine import MOMENTS, Engine, join, leave
from trainer.model.decoder import build
from trainer.model.shape import Architecture, Mup, Shape
from trainer.place import Place, free_port
from trainer.recipe import EngineRecipe, OptimizerRecipe

# The embedding is over the size from which stage 3 partitions a parameter for good; 41 is not shared evenly by two.
ARCHITECTURE = Architecture(
    position="alibi",
    feedforward="swiglu",
    norm="layernorm",
    bias=True,
    tied=True,
    mup=Mup(base_width=32, base_filter=64, embedding=10.0, logits=1.5, init_std=0.05),
)
SHAPE = Shape(
    layers=2, width=16, heads=2, kv_heads=1, head_dim=8, filter=41, vocab_size=6400, architecture=ARCHITECTURE
)
OPTIMIZER = OptimizerRecipe(clip=0.05)
RATES = (0.003, 0.01, 0.006, 0.004)
HALF = len(RATES) // 2
ROWS, SEQ_LEN = 8, 12
STAGES = (0, 1, 2, 3)
ENGINES = [*({"zero": stage} for stage in STAGES), {"zero": 3, "offload": "optimizer"}]

State = tuple[dict[str, torch.Tensor], dict[str, dict[str, torch.Tensor]], int]


def batches(rank: int, world: int) -> list[StepBatch]:
    """What a rank reads: its part of eight windows a step, each of three micro-batches or fewer."""
    rng = np.random.default_rng(0)
    own = slice(rank * ROWS // world, (rank + 1) * ROWS // world)
    return [
        StepBatch(
            step,
            0,
            rng.integers(0, SHAPE.vocab_size, (ROWS, SEQ_LEN))[own],
            np.ones((ROWS, SEQ_LEN - 1), np.float32)[own],
            np.zeros(ROWS, np.int64)[own],
            np.zeros((ROWS, len(COUNTS)), np.int64)[own],
        )
        for step in range(len(RATES))
    ]


def engine_of(**settings: Any) -> Engine:
    fields = {"micro_batch_tokens": 2 * SEQ_LEN, **settings}
    return Engine(build(SHAPE, seed=0), OPTIMIZER, EngineRecipe.model_validate(fields))


def learn(engine: Engine, steps: slice) -> tuple[list[float], list[float]]:
    """The losses over all ranks, and the norms, of some steps."""
    losses, norms = [], []
    for batch, rate in list(zip(batches(engine.rank, engine.world), RATES, strict=True))[steps]:
        result = engine.step(batch, rate)
        losses.append(float(engine.sum(result.losses.sum().double())))
        norms.append(result.gradient_norm)
    return losses, norms


def state_of(engine: Engine) -> State:
    names = list(engine.parameters())
    moments = {moment: {name: engine.gather(name, moment) for name in names} for moment in MOMENTS}
    return {name: engine.gather(name) for name in names}, moments, engine.optimizer_steps()


def put(engine: Engine, state: State) -> None:
    weights, moments, steps = state
    for name, value in weights.items():
        engine.scatter(name, value)
    for moment, values in moments.items():
        for name, value in values.items():
            engine.scatter(name, value, moment)
    engine.set_optimizer_steps(steps)


def work(rank: int, world: int, port: int, out: Path) -> None:
    """A rank: the runs of all engines, and of all that go on from another's state."""
    join(Place(rank=rank, world=world, local_rank=rank, address="127.0.0.1", port=port))
    through, half = [], []
    for settings in ENGINES:
        engine = engine_of(**settings)
        first = learn(engine, slice(HALF))
        half.append(state_of(engine))
        second = learn(engine, slice(HALF, None))
        through.append((first[0] + second[0], first[1] + second[1], state_of(engine), engine.hyperparameters()))
        engine.close()
    crossed = {}
    for target, settings in enumerate(ENGINES):
        for origin in range(len(STAGES)):
            engine = engine_of(**settings)
            put(engine, half[origin])
            crossed[origin, target] = (*learn(engine, slice(HALF, None)), state_of(engine), engine.hyperparameters())
            engine.close()
    if rank == 0:
        torch.save((through, crossed), out)
    leave()


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """(runs of each engine, {(origin, target): the run of an engine that went on from another's state})."""
    out, port = tmp_path_factory.mktemp("zero") / "found.pt", free_port()
    spawn = multiprocessing.get_context("spawn")
    ranks = [spawn.Process(target=work, args=(rank, 2, port, out)) for rank in range(2)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(240)
    assert [process.exitcode for process in ranks] == [0, 0]
    return torch.load(out, weights_only=False)


@pytest.fixture(scope="module")
def alone(process_group: None) -> Any:
    """The run of one worker at stage 1."""
    engine = engine_of(zero=1)
    found = (*learn(engine, slice(None)), state_of(engine), engine.hyperparameters())
    engine.close()
    return found


def assert_same(state: State, expected: State, **tolerance: float) -> None:
    weights, moments, steps = state
    torch.testing.assert_close(weights, expected[0], **tolerance)
    torch.testing.assert_close(moments, expected[1], **tolerance)
    assert steps == expected[2]


@pytest.mark.parametrize("number", range(len(ENGINES)), ids=map(str, ENGINES))
def test_two_workers_learn_what_one_does_at_every_stage(found: Any, alone: Any, number: int) -> None:
    losses, norms, state, groups = found[0][number]
    assert losses == pytest.approx(alone[0], rel=1e-5)
    assert norms == pytest.approx(alone[1], rel=1e-4)
    assert_same(state, alone[2], atol=5e-6, rtol=1e-4)
    assert groups == alone[3]


@pytest.mark.parametrize("target", range(len(ENGINES)), ids=map(str, ENGINES))
@pytest.mark.parametrize("origin", range(len(STAGES)))
def test_state_goes_from_every_stage_to_every_other(found: Any, origin: int, target: int) -> None:
    losses, norms, state, groups = found[1][origin, target]
    through = found[0][target]
    assert losses == pytest.approx(through[0][HALF:], rel=1e-6)
    assert norms == pytest.approx(through[1][HALF:], rel=1e-5)
    assert_same(state, through[2], atol=5e-6, rtol=1e-4)
    assert groups == through[3]


@pytest.mark.parametrize("stage", STAGES)
def test_the_same_stage_goes_on_to_the_bit(found: Any, stage: int) -> None:
    losses, norms, state, _ = found[1][stage, stage]
    through = found[0][stage]
    assert (losses, norms) == (through[0][HALF:], through[1][HALF:])
    assert_same(state, through[2], atol=0.0, rtol=0.0)
