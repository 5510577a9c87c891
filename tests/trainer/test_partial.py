"""Training a part of a decoder: against torch's own AdamW over that part, and over the phases of a run."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.trainer.conftest import MakeMixture, MakeRecipe, entered, never, stop_after
from tests.trainer.test_engine import OPTIMIZER, RATES, ROWS, SEQ_LEN, batches
from tests.trainer.test_engine import SHAPE as SMALL
from torch import Tensor

from manifest.checkpoint import Checkpoint
from manifest.store import LocalStore
from trainer import loop
from trainer.checkpoint import load_model
from trainer.engine import MOMENTS, Engine
from trainer.frozen import FrozenChangedError
from trainer.loss import window_losses
from trainer.model.adapters import adapt
from trainer.model.decoder import Decoder, build
from trainer.model.shape import Shape
from trainer.optimizer import adamw, parameter_groups
from trainer.recipe import EngineRecipe
from trainer.recipe_lora import Lora
from trainer.run import Run
from trainer.trainable import Trainable, trained

pytestmark = pytest.mark.usefixtures("process_group", "alone_as_among_many")

# The embedding is over the size from which stage 3 partitions a parameter for good.
SHAPE = SMALL.model_copy(update={"vocab_size": 6400})
PARTS = [
    Trainable(named="embeddings"),
    Trainable(new_rows=50),
    Trainable(pattern=("layers.1.*", "*norm.bias")),
    Trainable(lora=Lora(rank=3, alpha=6)),
]
UNTIED = SHAPE.model_copy(update={"architecture": SHAPE.architecture.model_copy(update={"tied": False})})


def adapted(part: Trainable, shape: Shape = SHAPE) -> Decoder:
    decoder = build(shape, seed=0)
    adapt(decoder, part, shape, seed=0)
    return decoder


def trained_by_torch(part: Trainable, shape: Shape) -> tuple[dict[str, Tensor], list[Tensor]]:
    """The plain decoder, whole gradients, and AdamW over those alone that are trained: rows, and LoRA's A and B, as
    tensors of their own, whose gradients follow from those of the whole matrices.
    """
    decoder, base = build(shape, seed=0), dict(build(shape, seed=0).named_parameters())
    held = dict(decoder.named_parameters())
    twin = adapted(part, shape)
    begun = dict(twin.named_parameters())
    stand_ins = {name: torch.nn.Parameter(begun[name].detach().clone()) for name in trained(part, shape)}
    groups = parameter_groups(twin, shape, OPTIMIZER)
    by_id = {id(parameter): name for name, parameter in twin.named_parameters()}
    for group in groups:
        group["params"] = [stand_ins[by_id[id(parameter)]] for parameter in group["params"]]
    optimizer = adamw(groups, OPTIMIZER)
    losses = []
    for batch, rate in zip(batches(), RATES, strict=True):
        with torch.no_grad():
            for name, value in stand_ins.items():
                if name.endswith(".lora_a"):
                    module = name.removesuffix(".lora_a")
                    product = stand_ins[f"{module}.lora_b"] @ value
                    held[f"{module}.weight"].copy_(base[f"{module}.weight"] + part.lora.scale * product)
                elif not name.endswith(".lora_b"):
                    _part_of(held, name, part).copy_(value)
        tokens = torch.from_numpy(batch.tokens)
        loss_N = window_losses(decoder(tokens[:, :-1]), tokens[:, 1:], torch.from_numpy(batch.weights))
        gradients = torch.autograd.grad(loss_N.sum() / ((ROWS - 1) * (SEQ_LEN - 1)), list(held.values()))
        whole = dict(zip(held, gradients, strict=True))
        for name, value in stand_ins.items():
            module, _, end = name.rpartition(".")
            if end == "lora_a":
                value.grad = part.lora.scale * stand_ins[f"{module}.lora_b"].detach().T @ whole[f"{module}.weight"]
            elif end == "lora_b":
                value.grad = part.lora.scale * whole[f"{module}.weight"] @ stand_ins[f"{module}.lora_a"].detach().T
            else:
                value.grad = _part_of(whole, name, part).clone()
        torch.nn.utils.clip_grad_norm_(list(stand_ins.values()), OPTIMIZER.clip)
        for group in optimizer.param_groups:
            group["lr"] = rate * group["lr_multiplier"]
        optimizer.step()
        losses.append(loss_N.detach())
    return {name: value.detach() for name, value in stand_ins.items()}, losses


def _part_of(tensors: dict[str, Any], name: str, part: Trainable) -> Tensor:
    if name.endswith(".new_rows"):
        rows: Tensor = tensors[name.replace(".new_rows", ".weight")].detach()[part.new_rows :]
        return rows
    found: Tensor = tensors[name].detach()
    return found


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
@pytest.mark.parametrize(
    ("part", "shape"),
    [*((part, SHAPE) for part in PARTS), (PARTS[1], UNTIED)],
    ids=[*map(str, PARTS), "untied new_rows"],
)
def test_a_part_is_trained_as_by_torch_and_the_rest_stays(stage: int, part: Trainable, shape: Shape) -> None:
    expected, losses = trained_by_torch(part, shape)
    engine = Engine(adapted(part, shape), OPTIMIZER, EngineRecipe.model_validate({"zero": stage}))
    assert engine.trained() == list(expected)
    before = {name: engine.gather(name) for name in engine.parameters() if name not in expected}
    for batch, rate, loss in zip(batches(), RATES, losses, strict=True):
        torch.testing.assert_close(engine.step(batch, rate).losses, loss, atol=1e-4, rtol=1e-5)
    for name, value in expected.items():
        torch.testing.assert_close(engine.gather(name), value, atol=2e-5, rtol=1e-4)
    assert all(torch.equal(engine.gather(name), value) for name, value in before.items())
    engine.close()


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
@pytest.mark.parametrize("part", PARTS[1:], ids=str)
def test_an_optimizer_holds_nothing_for_what_is_frozen(stage: int, part: Trainable) -> None:
    engine = Engine(adapted(part), OPTIMIZER, EngineRecipe.model_validate({"zero": stage}))
    engine.step(batches()[0], RATES[0])
    held = sum(state[moment].numel() for state in engine._state.inner.state.values() for moment in MOMENTS)
    sizes = engine.parameters()
    needed = 2 * sum(sizes[name].numel() for name in engine.trained())
    assert needed <= held <= needed + 2 * 16 * len(engine.trained())  # ZeRO aligns what it partitions
    engine.close()


# --- the phases of a run

SCHEDULE = {"shape": "constant", "peak": 0.01}
PHASE = {"seq_len": 16, "tokens_per_step": 128, "schedule": SCHEDULE, "optimizer": "reset"}
DRAWS = {"rows": {"a": 4}, "tables": {"a": 4}, "some": {"a": 4}, "low": {"a": 4}, "rest": {"a": 4}}
LORA = {"lora": {"rank": 3, "alpha": 6, "targets": ["query", "layers.0.feedforward.*"], "dropout": 0.2}}
CHOICES = {
    "rows": {"new_rows": 60},
    "tables": "embeddings",
    "some": {"pattern": "layers.0.*"},
    "low": LORA,
    "rest": "all",
}


@pytest.fixture
def prepare(tmp_path: Path, make_mixture: MakeMixture, make_recipe: MakeRecipe) -> Any:
    """A run of five phases of two steps; each trains something else."""
    mixture = make_mixture(DRAWS)

    def make(store_name: str = "out", zero: int = 1) -> tuple[LocalStore, Run]:
        phases = {name: PHASE | {"trainable": what} for name, what in CHOICES.items()}
        recipe = make_recipe(phases=phases, engine={"zero": zero, "micro_batch_tokens": 64}, save={"every_tokens": 128})
        store = LocalStore(tmp_path / store_name)
        return entered(store, recipe, mixture)

    return make


def record_at(store: LocalStore, run: Run, step: int) -> Checkpoint:
    found = store.manifest(run.checkpoint_path(step))
    assert isinstance(found, Checkpoint)
    return found


def model_at(store: LocalStore, run: Run, step: int) -> dict[str, Tensor]:
    model, _ = load_model(store.where(run.checkpoint_path(step)))
    return {name: value.detach() for name, value in model.named_parameters()}


def test_each_phase_changes_what_it_trains_and_nothing_else(prepare: Any) -> None:
    store, run = prepare()
    loop.train(store, run, never)
    models = [model_at(store, run, step) for step in (0, 2, 4, 6, 8, 10)]
    changed = [
        {name for name in before if not torch.equal(before[name], after[name])}
        for before, after in itertools.pairwise(models)
    ]
    assert changed[:2] == [{"embedding.weight"}, {"embedding.weight"}]
    assert changed[2] == {name for name in models[0] if name.startswith("layers.0.")}
    adapted = {f"layers.0.feedforward.{name}.weight" for name in ("gate", "up", "down")}
    assert changed[3] == {*adapted, "layers.0.attention.query.weight", "layers.1.attention.query.weight"}
    assert changed[4] == set(models[0])
    assert torch.equal(models[0]["embedding.weight"][:60], models[1]["embedding.weight"][:60])
    assert not torch.equal(models[1]["embedding.weight"][:60], models[2]["embedding.weight"][:60])


def test_a_checkpoint_has_the_digest_of_each_frozen_parameter_and_moments_of_the_others(prepare: Any) -> None:
    store, run = prepare()
    loop.train(store, run, stop_after(6))
    record = record_at(store, run, 6)
    trained_ones = {name for file in record.moments for name in file.parameters}
    assert trained_ones == {name for name in model_at(store, run, 6) if name.startswith("layers.0.")}
    assert set(record.state["frozen"]) == set(model_at(store, run, 6)) - trained_ones


def test_a_run_that_is_stopped_in_a_phase_or_between_two_goes_on_to_the_bit(prepare: Any) -> None:
    through = prepare("through")
    loop.train(*through, never)
    one = record_at(*through, 10)
    for stopped_after in (1, 2, 5, 7, 8):
        stopped = prepare(f"stopped-after-{stopped_after}")
        loop.train(*stopped, stop_after(stopped_after))
        loop.train(*stopped, never)
        other = record_at(*stopped, 10)
        assert (one.weights, one.moments, one.state) == (other.weights, other.moments, other.state), stopped_after


def test_a_frozen_parameter_that_changes_stops_the_run_before_it_is_saved(
    prepare: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, run = prepare()
    update = Engine.update

    def careless(engine: Engine, holds: Callable[[float], bool]) -> float:
        result = update(engine, holds)
        if "layers.0.attention.query.bias" not in engine.trained():
            engine.scatter("layers.0.attention.query.bias", torch.ones(16))
        return result

    monkeypatch.setattr(Engine, "update", careless)
    with pytest.raises(
        FrozenChangedError, match=r"layers\.0\.attention\.query\.bias is frozen, and has changed by step 2"
    ):
        loop.train(store, run, never)
    assert store.list(f"{run.path}/checkpoints") == ["00000000", "00000001"]
