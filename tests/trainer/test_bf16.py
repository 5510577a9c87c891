"""bf16: the arithmetic of 16 bits over masters of 32, which are what goes in and out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from trainer.data.fim import COUNTS
from trainer.data.loader import StepBatch
from trainer.engine import MOMENTS, Engine
from trainer.model.decoder import build
from trainer.model.shape import Architecture, Shape
from trainer.recipe import EngineRecipe, OptimizerRecipe

STEPS, ROWS, SEQ_LEN = 6, 4, 17


def shape(position: str) -> Shape:
    architecture = {"position": position, "feedforward": "swiglu", "norm": "rmsnorm", "bias": True}
    return Shape(
        layers=2,
        width=32,
        heads=4,
        kv_heads=2,
        head_dim=8,
        filter=48,
        vocab_size=300,
        architecture=Architecture.model_validate(architecture | {"tied": position == "alibi"}),
    )


def batch(step: int) -> StepBatch:
    tokens = np.random.default_rng(step % 3).integers(0, 300, (ROWS, SEQ_LEN))
    weights, fim = np.ones((ROWS, SEQ_LEN - 1), np.float32), np.zeros((ROWS, len(COUNTS)), np.int64)
    return StepBatch(step, 0, tokens, weights, np.zeros(ROWS, np.int64), fim)


@contextmanager
def engine(precision: str, zero: int, position: str = "rope") -> Iterator[Engine]:
    fields = {"zero": zero, "precision": precision, "micro_batch_tokens": 2 * SEQ_LEN}
    made = Engine(build(shape(position), seed=1), OptimizerRecipe(), EngineRecipe.model_validate(fields))
    yield made
    made.close()


def learn(made: Engine, steps: range) -> list[float]:
    return [float(made.step(batch(step), 2e-3).losses.sum()) for step in steps]


def state_of(made: Engine) -> dict[str | None, dict[str, torch.Tensor]]:
    return {part: {name: made.gather(name, part) for name in made.parameters()} for part in (None, *MOMENTS)}


def put(made: Engine, state: dict[str | None, dict[str, torch.Tensor]], steps: int) -> None:
    for part, values in state.items():
        for name, value in values.items():
            made.scatter(name, value, part)
    made.set_optimizer_steps(steps)


@pytest.mark.parametrize("position", ["rope", "alibi"])
def test_bf16_learns_what_fp32_does_to_its_rounding(process_group: None, position: str) -> None:
    with engine("fp32", 1, position) as made:
        expected = learn(made, range(STEPS))
    with engine("bf16", 1, position) as made:
        found = learn(made, range(STEPS))
    assert found == pytest.approx(expected, rel=2e-3)
    assert found != expected
    assert found[-1] < 0.99 * found[0]


@pytest.mark.parametrize("zero", [1, 2, 3])
def test_masters_and_moments_of_bf16_are_whole_and_go_on_bit_for_bit(process_group: None, zero: int) -> None:
    with engine("bf16", zero) as made:
        learn(made, range(STEPS))
        state = state_of(made)
        expected = learn(made, range(STEPS, STEPS + 3))
    weights = state[None]["embedding.weight"]
    assert weights.dtype == torch.float32
    assert not torch.equal(weights, weights.bfloat16().float()), "an update smaller than bf16's steps is kept"
    with engine("bf16", zero) as made:
        put(made, state, STEPS)
        again = state_of(made)
        assert all(torch.equal(again[part][name], value) for part in state for name, value in state[part].items())
        assert learn(made, range(STEPS, STEPS + 3)) == expected


def test_a_run_goes_on_in_the_other_precision_from_the_same_masters(process_group: None) -> None:
    with engine("bf16", 2) as made:
        learn(made, range(STEPS))
        state = state_of(made)
        expected = learn(made, range(STEPS, STEPS + 3))
    with engine("fp32", 1) as made:
        put(made, state, STEPS)
        assert learn(made, range(STEPS, STEPS + 3)) == pytest.approx(expected, rel=2e-3)


def test_auto_is_fp32_where_there_is_no_gpu(process_group: None) -> None:
    with engine("auto", 1) as made:
        assert made.precision == ("bf16" if torch.cuda.is_available() else "fp32")


def test_bf16_needs_a_stage_with_masters() -> None:
    with pytest.raises(ValueError, match="use zero 1, 2 or 3"):
        EngineRecipe(zero=0, precision="bf16")


def gradients(made: Engine, rows: range) -> torch.Tensor:
    """The gradient of some rows of one batch, of weights that stay as they are: what AdamW remembers of it."""
    tokens = np.random.default_rng(0).integers(0, 300, (16, SEQ_LEN))[rows]
    weights, fim = np.ones((len(rows), SEQ_LEN - 1), np.float32), np.zeros((len(rows), len(COUNTS)), np.int64)
    made.reset_optimizer()
    made.step(StepBatch(0, 0, tokens, weights, np.zeros(len(rows), np.int64), fim), 0.0)
    return torch.cat([made.gather(name, "exp_avg").double().flatten() for name in made.trained()])


@pytest.mark.parametrize("zero", [1, 2, 3])
def test_gradients_of_micro_batches_are_summed_in_fp32(process_group: None, zero: int) -> None:
    fields = {"zero": zero, "precision": "bf16", "micro_batch_tokens": SEQ_LEN}
    settings = EngineRecipe.model_validate(fields)
    made = Engine(build(shape("rope"), seed=1), OptimizerRecipe(clip=1e9, weight_decay=0.0), settings)
    whole = gradients(made, range(16))
    parts = sum(gradients(made, range(row, row + 1)) for row in range(16)) / 16
    assert float((whole - parts).norm() / parts.norm()) < 1e-6  # in 16 bits: 4e-3
    made.close()


@pytest.mark.parametrize("zero", [1, 2, 3])
def test_masters_begin_with_the_weights_of_the_seed_and_not_with_their_rounding(process_group: None, zero: int) -> None:
    expected = dict(build(shape("rope"), seed=1).named_parameters())
    with engine("bf16", zero) as made:
        assert all(torch.equal(made.gather(name), value) for name, value in expected.items())


@pytest.mark.parametrize("zero", [1, 2, 3])
def test_what_is_frozen_is_not_rounded(process_group: None, zero: int) -> None:
    """The forward pass reads it in 16 bits; what is saved, and hashed at the end of a phase, is what began."""
    decoder = build(shape("rope"), seed=1)
    for name, held in decoder.named_parameters():
        held.requires_grad_("embedding" in name)
    expected = {name: held.detach().clone() for name, held in decoder.named_parameters()}
    settings = EngineRecipe.model_validate({"zero": zero, "precision": "bf16", "micro_batch_tokens": 4 * SEQ_LEN})
    made = Engine(decoder, OptimizerRecipe(), settings)
    learn(made, range(2))
    frozen = [name for name in expected if name not in made.trained()]
    assert len(frozen) > 3
    assert all(torch.equal(made.gather(name), expected[name]) for name in frozen)
    assert not torch.equal(made.gather("embedding.weight"), expected["embedding.weight"])
    other = torch.randn_like(expected[frozen[0]])
    made.scatter(frozen[0], other)
    assert torch.equal(made.gather(frozen[0]), other)
    if zero < 3:  # a module that has come to compute with something else is told
        with torch.no_grad():
            dict(decoder.named_parameters())[frozen[0]].add_(1.0)
        assert not torch.equal(made.gather(frozen[0]), other)
    made.close()
