"""DeepSpeed against torch's own AdamW on the whole batch, and against itself at other stages and micro-batches."""

from __future__ import annotations

import gc

import numpy as np
import pytest
import torch
from torch.nn import Parameter

from trainer.data.fim import COUNTS
from trainer.data.loader import StepBatch
from trainer.engine import MOMENTS, Engine
from trainer.loss import window_losses
from trainer.model.decoder import Decoder, build
from trainer.model.shape import Architecture, Mup, Shape
from trainer.optimizer import adamw, parameter_groups
from trainer.recipe import EngineRecipe, OptimizerRecipe

pytestmark = pytest.mark.usefixtures("process_group")

ARCHITECTURE = Architecture(
    position="alibi",
    feedforward="swiglu",
    norm="layernorm",
    bias=True,
    tied=True,
    mup=Mup(base_width=32, base_filter=64, embedding=10.0, logits=1.5, init_std=0.05),
)
SHAPE = Shape(layers=2, width=16, heads=2, kv_heads=2, head_dim=8, filter=40, vocab_size=64, architecture=ARCHITECTURE)
OPTIMIZER = OptimizerRecipe(clip=0.05)
RATES = (0.003, 0.01, 0.006)
ROWS, SEQ_LEN = 7, 12


def batches() -> list[StepBatch]:
    """Three steps of seven windows, one of them padding."""
    rng = np.random.default_rng(0)
    weights = np.ones((ROWS, SEQ_LEN - 1), np.float32)
    weights[-1] = 0
    views = np.where(weights[:, 0] > 0, 0, -1)
    fim = np.zeros((ROWS, len(COUNTS)), np.int64)
    return [StepBatch(step, 0, rng.integers(0, 64, (ROWS, SEQ_LEN)), weights, views, fim) for step in range(len(RATES))]


def trained_by_torch(
    decays: tuple[float, ...] = (OPTIMIZER.weight_decay,) * len(RATES),
) -> tuple[Decoder, list[torch.Tensor], list[float]]:
    decoder = build(SHAPE, seed=0)
    optimizer = adamw(parameter_groups(decoder, SHAPE, OPTIMIZER), OPTIMIZER)
    losses, norms = [], []
    for batch, rate, decay in zip(batches(), RATES, decays, strict=True):
        tokens = torch.from_numpy(batch.tokens)
        loss_N = window_losses(decoder(tokens[:, :-1]), tokens[:, 1:])
        loss_N = torch.cat([loss_N[:-1], torch.zeros(1)])
        (loss_N.sum() / ((ROWS - 1) * (SEQ_LEN - 1))).backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(decoder.parameters(), OPTIMIZER.clip)))
        for group in optimizer.param_groups:
            group["lr"] = rate * group["lr_multiplier"]
            group["weight_decay"] = 0.0 if group["name"] == "norms_and_biases" else decay
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss_N.detach())
    return decoder, losses, norms


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
@pytest.mark.parametrize("micro_batch_tokens", [1, 3 * SEQ_LEN, 1000])
def test_training_equals_torchs_adamw_on_the_whole_batch(stage: int, micro_batch_tokens: int) -> None:
    decoder, losses, norms = trained_by_torch()
    settings = EngineRecipe.model_validate({"zero": stage, "micro_batch_tokens": micro_batch_tokens})
    engine = Engine(build(SHAPE, seed=0), OPTIMIZER, settings)
    for batch, rate, loss, norm in zip(batches(), RATES, losses, norms, strict=True):
        result = engine.step(batch, rate)
        torch.testing.assert_close(result.losses, loss, atol=1e-4, rtol=1e-5)
        assert result.gradient_norm == pytest.approx(norm, rel=1e-4)
    for name, parameter in decoder.named_parameters():
        torch.testing.assert_close(engine.gather(name), parameter.detach(), atol=2e-5, rtol=1e-4)
    assert engine.optimizer_steps() == len(RATES)
    engine.close()


@pytest.mark.parametrize("stage", [0, 1, 3])
def test_a_weight_decay_of_its_own_for_each_step_is_torchs(stage: int) -> None:
    decays = (0.0, 9.0, 0.1)
    decoder, _, _ = trained_by_torch(decays)
    engine = Engine(build(SHAPE, seed=0), OPTIMIZER, EngineRecipe.model_validate({"zero": stage}))
    made = engine.hyperparameters()
    for batch, rate, decay in zip(batches(), RATES, decays, strict=True):
        engine.step(batch, rate, decay)
    for name, parameter in decoder.named_parameters():
        torch.testing.assert_close(engine.gather(name), parameter.detach(), atol=2e-5, rtol=1e-4)
    assert engine.hyperparameters() == made
    engine.close()


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_what_is_scattered_is_what_is_gathered_and_what_the_model_computes_with(stage: int) -> None:
    engine = Engine(build(SHAPE, seed=0), OPTIMIZER, EngineRecipe.model_validate({"zero": stage}))
    other = build(SHAPE, seed=1)
    for name, parameter in other.named_parameters():
        engine.scatter(name, parameter.detach())
        for moment in MOMENTS:
            engine.scatter(name, parameter.detach().square(), moment)
    engine.set_optimizer_steps(9)
    for name, parameter in other.named_parameters():
        assert torch.equal(engine.gather(name), parameter)
        assert all(torch.equal(engine.gather(name, moment), parameter.square()) for moment in MOMENTS)
    batch = batches()[0]
    tokens = torch.from_numpy(batch.tokens)
    expected = window_losses(other(tokens[:, :-1]), tokens[:, 1:], torch.from_numpy(batch.weights))
    torch.testing.assert_close(engine.step(batch, 0.0).losses, expected.detach(), atol=1e-4, rtol=1e-5)
    assert engine.optimizer_steps() == 10
    engine.close()


def test_a_reset_optimizer_goes_on_like_a_new_one() -> None:
    first, second, third = batches()
    engine = Engine(build(SHAPE, seed=0), OPTIMIZER, EngineRecipe())
    engine.step(first, RATES[0])
    engine.step(second, RATES[1])
    weights = {name: engine.gather(name) for name in engine.parameters()}
    engine.reset_optimizer()
    engine.step(third, RATES[2])
    fresh = build(SHAPE, seed=0)
    fresh.load_state_dict(weights)
    anew = Engine(fresh, OPTIMIZER, EngineRecipe())
    anew.step(third, RATES[2])
    for name in weights:
        assert torch.equal(engine.gather(name), anew.gather(name))
    engine.close()
    anew.close()


def live_bytes() -> int:
    """Of all tensors that Python knows of."""
    gc.collect()
    return sum(each.untyped_storage().nbytes() for each in gc.get_objects() if type(each) in (torch.Tensor, Parameter))


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_a_closed_engine_holds_nothing_of_its_model_however_many_there_were(stage: int) -> None:
    sizes = []
    for _ in range(3):
        engine = Engine(build(SHAPE, seed=0), OPTIMIZER, EngineRecipe.model_validate({"zero": stage}))
        engine.step(batches()[0], 0.01)
        engine.close()
        del engine
        sizes.append(live_bytes())
    assert sizes[-1] - sizes[0] < SHAPE.parameters  # a leg that stayed would hold 16 bytes of each, and buffers
