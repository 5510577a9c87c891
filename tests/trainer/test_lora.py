"""LoRA's arithmetic, alone and against Hugging Face PEFT, and its way out to PEFT and back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from tests.trainer.conftest import MakeMixture, MakeRecipe
from torch import Tensor
from transformers import AutoModelForCausalLM

from manifest.errors import InputError, RecipeError
from manifest.store import LocalStore
from trainer import loop
from trainer.checkpoint import load_model
from trainer.data.fim import COUNTS
from trainer.data.loader import StepBatch
from trainer.engine import Engine
from trainer.fit import FitOptions, plan_run
from trainer.huggingface.convert import conversion
from trainer.huggingface.export import ExportOptions, export
from trainer.huggingface.export_adapter import export_adapter
from trainer.huggingface.source import open_source
from trainer.huggingface.weights import write_weights
from trainer.launch import Workers
from trainer.model.adapters import adapt
from trainer.model.decoder import Decoder, build
from trainer.model.shape import Architecture, Mup, Shape
from trainer.recipe import EngineRecipe, OptimizerRecipe
from trainer.recipe_lora import Lora
from trainer.run import Run, enter
from trainer.sizes import resolve
from trainer.trainable import Trainable, require_trainable

pytestmark = pytest.mark.usefixtures("process_group")

LLAMA = {
    "position": "rope", "feedforward": "swiglu", "norm": "rmsnorm", "bias": False, "tied": False
}  # fmt: skip
MUP = Mup(base_width=32, base_filter=64, embedding=10.0, logits=1.5, init_std=0.05)
VOCAB = 97
"""Of the runs; 64 elsewhere, which needs no padding."""


def shape(**architecture: Any) -> Shape:
    dimensions = {"layers": 2, "width": 32, "heads": 4, "kv_heads": 2, "head_dim": 8, "filter": 44, "vocab_size": 64}
    return Shape(**dimensions, architecture=Architecture.model_validate(LLAMA | architecture))


def tokens(rows: int = 3, length: int = 12, seed: int = 0) -> Tensor:
    return torch.randint(0, 64, (rows, length), generator=torch.Generator().manual_seed(seed))


def with_lora(lora: Lora, wanted: Shape) -> Decoder:
    decoder = build(wanted, seed=0)
    adapt(decoder, Trainable(lora=lora), wanted, seed=7)
    return decoder


def moved(decoder: Decoder) -> Decoder:
    """With a B that is not zeros."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in decoder.named_parameters():
            if name.endswith("lora_b"):
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return decoder


def test_it_has_no_effect_at_its_start() -> None:
    wanted = shape(mup=MUP.model_dump())
    adapted = with_lora(Lora(rank=4, alpha=8), wanted).eval()
    assert torch.equal(adapted(tokens()), build(wanted, seed=0).eval()(tokens()))
    assert any(held.requires_grad for held in adapted.parameters())


def test_dropout_acts_in_training_alone() -> None:
    decoder = moved(with_lora(Lora(rank=4, alpha=8, dropout=0.5), shape()))
    torch.manual_seed(0)
    one, other = decoder(tokens()), decoder(tokens())
    assert not torch.equal(one, other)
    decoder.eval()
    assert torch.equal(decoder(tokens()), decoder(tokens()))


def test_it_begins_as_its_seed_says_whatever_else_is_adapted() -> None:
    few = dict(with_lora(Lora(rank=4, alpha=8, targets=("query",)), shape()).named_parameters())
    many = dict(with_lora(Lora(rank=4, alpha=8), shape()).named_parameters())
    name = "layers.1.attention.query.lora_a"
    assert torch.equal(few[name], many[name])
    assert float(many[name].detach().abs().max()) <= 32**-0.5
    assert not torch.equal(many[name], many["layers.0.attention.query.lora_a"])


@pytest.mark.parametrize(
    ("lora", "expected"),
    [
        ({"rank": 33, "alpha": 8}, "rank: found 33, and layers.0.attention.query is a matrix of 32 by 32"),
        (
            {"rank": 17, "alpha": 8, "targets": "key"},
            "layers.0.attention.key is a matrix of 16 by 32, whose rank is at ",
        ),
        (
            {"rank": 4, "alpha": 8, "targets": ["query", "q_proj"]},
            "no matrix of a layer matches 'q_proj'; there are att",
        ),
        ({"rank": 4, "alpha": 8, "targets": ["embedding"]}, "no matrix of a layer matches 'embedding'"),
    ],
)
def test_what_cannot_be_adapted_is_one_clear_error(lora: dict[str, Any], expected: str) -> None:
    trainable = Trainable.model_validate({"lora": lora})
    with pytest.raises(RecipeError, match=r"phases\.tune\.trainable\.lora") as error:
        require_trainable({"tune": trainable}, shape(), "train.yaml")
    assert expected in str(error.value)


# --- against PEFT

TARGETS = {"query": "q_proj", "value": "v_proj", "down": "down_proj"}
OPTIMIZER = OptimizerRecipe(clip=1.0, weight_decay=0.1)
RATES = (0.01, 0.02, 0.01)


def hugging_face(decoder: Decoder, directory: Path) -> Any:
    """The decoder as transformers has it."""
    made = conversion(decoder.shape, dtype="float32", bits=None, length=64, end_of_text=0)
    directory.mkdir()
    write_weights(directory, made.tensors(lambda name: decoder.get_parameter(name).detach()))
    (directory / "config.json").write_text(json.dumps(made.config()))
    return AutoModelForCausalLM.from_pretrained(directory, dtype="float32")


def test_it_learns_what_peft_learns(tmp_path: Path) -> None:
    lora, wanted = Lora(rank=4, alpha=12, targets=tuple(TARGETS)), shape()
    config = LoraConfig(r=4, lora_alpha=12, target_modules=list(TARGETS.values()), task_type="CAUSAL_LM")
    theirs = get_peft_model(hugging_face(build(wanted, seed=0), tmp_path / "hf"), config)
    ours = with_lora(lora, wanted)
    held = dict(theirs.named_parameters())
    pairs = {name: held[theirs_of(name)] for name, one in ours.named_parameters() if one.requires_grad}
    assert len(pairs) == sum(one.requires_grad for one in held.values())
    with torch.no_grad():
        for name, one in pairs.items():
            one.copy_(ours.get_parameter(name))
    optimizer = torch.optim.AdamW(pairs.values(), betas=OPTIMIZER.betas, eps=OPTIMIZER.eps, weight_decay=0.1)
    engine = Engine(ours, OPTIMIZER, EngineRecipe())
    for step, rate in enumerate(RATES):
        ids = tokens(seed=step)
        loss = theirs(ids, labels=ids).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(list(pairs.values()), 1.0)
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()
        result = engine.step(batch(step, ids), rate)
        assert float(result.losses.sum() / (ids.shape[0] * (ids.shape[1] - 1))) == pytest.approx(loss.item(), rel=1e-5)
    for name, one in pairs.items():
        torch.testing.assert_close(engine.gather(name), one.detach(), atol=2e-5, rtol=1e-3)
    engine.close()


def theirs_of(name: str) -> str:
    _, layer, block, module, end = name.split(".")
    place = {"attention": "self_attn", "feedforward": "mlp"}[block]
    return f"base_model.model.model.layers.{layer}.{place}.{TARGETS[module]}.lora_{end[-1].upper()}.default.weight"


def batch(step: int, ids: Tensor) -> StepBatch:
    rows, length = ids.shape
    weights = np.ones((rows, length - 1), np.float32)
    return StepBatch(step, 0, ids.numpy(), weights, np.zeros(rows, np.int64), np.zeros((rows, len(COUNTS)), np.int64))


# --- out of a run and back

SCHEDULE = {"shape": "constant", "peak": 0.02}
PHASE = {"seq_len": 16, "tokens_per_step": 128, "schedule": SCHEDULE, "optimizer": "reset"}
LORA = {"lora": {"rank": 3, "alpha": 6, "targets": ["attention.*", "down"]}}

Trained = tuple[LocalStore, Run]


def train(root: Path, make_mixture: MakeMixture, make_recipe: MakeRecipe, **architecture: Any) -> Trained:
    """Two steps of everything, then two of LoRA."""
    phases = {"base": PHASE, "tune": PHASE | {"trainable": LORA}}
    mixture = make_mixture({"base": {"a": 4}, "tune": {"a": 4}})
    recipe = make_recipe(phases=phases, architecture=LLAMA | architecture)
    store = LocalStore(root / "out")
    options = FitOptions(recipe=resolve(recipe, None), mixture=mixture.uri, out=store.uri, workers=Workers(None, 1))
    run = enter(store, plan_run(options, store))
    loop.train(store, run, lambda: False)
    return store, run


@pytest.fixture
def trained(tmp_path: Path, make_mixture: MakeMixture, make_recipe: MakeRecipe) -> Trained:
    return train(tmp_path, make_mixture, make_recipe, mup=MUP.model_dump())


def at(trained: Trained, step: int) -> str:
    store, run = trained
    return store.where(run.checkpoint_path(step))


def export_whole(trained: Trained, step: int, out: Path, adapter: Path | None = None) -> Any:
    export(ExportOptions(checkpoint=at(trained, step), out=out, tokenizer=False, adapter=adapter))
    return AutoModelForCausalLM.from_pretrained(out, dtype="float32", trust_remote_code=True)


def test_merged_predicts_what_unmerged_does(trained: Trained) -> None:
    merged, record = load_model(at(trained, 4))
    source = open_source(at(trained, 4))
    unmerged = build(merged.shape, seed=0)
    adapt(unmerged, Trainable.model_validate(record.state["adapters"]), merged.shape, seed=0)
    unmerged.load_state_dict({name: source.stored.tensor(name) for name in source.stored.files})
    torch.testing.assert_close(unmerged.eval()(tokens()), merged(tokens()), atol=1e-5, rtol=1e-5)
    base, _ = load_model(at(trained, 2))
    assert (base(tokens()) - merged(tokens())).abs().max().item() > 0.01


def test_an_adapter_is_read_by_peft_over_the_exported_base(trained: Trained, tmp_path: Path) -> None:
    base = export_whole(trained, 2, tmp_path / "base")
    opened = export_adapter(at(trained, 4), tmp_path / "adapter")
    assert {file.path for file in opened.manifest.files()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "README.md",
    }
    adapted = PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    merged, _ = load_model(at(trained, 4))
    with torch.no_grad():
        torch.testing.assert_close(adapted(tokens()).logits, merged(tokens())[..., :VOCAB], atol=1e-5, rtol=1e-5)


def test_an_export_has_it_merged(trained: Trained, tmp_path: Path) -> None:
    whole = export_whole(trained, 4, tmp_path / "whole")
    merged, _ = load_model(at(trained, 4))
    with torch.no_grad():
        torch.testing.assert_close(whole(tokens()).logits, merged(tokens())[..., :VOCAB], atol=1e-5, rtol=1e-5)


def test_an_adapter_goes_onto_its_base_and_no_other(trained: Trained, tmp_path: Path) -> None:
    export_adapter(at(trained, 4), tmp_path / "adapter")
    onto = export_whole(trained, 2, tmp_path / "onto", adapter=tmp_path / "adapter")
    whole = export_whole(trained, 4, tmp_path / "whole")
    with torch.no_grad():
        torch.testing.assert_close(onto(tokens()).logits, whole(tokens()).logits, atol=1e-5, rtol=1e-5)
    with pytest.raises(
        InputError, match=r"was trained on another base: its adapter_config.json names \w+, and .* is \w+"
    ):
        export_whole(trained, 0, tmp_path / "other", adapter=tmp_path / "adapter")
    assert not (tmp_path / "other").exists()


def test_an_adapter_that_is_not_plain_or_not_whole_is_refused(trained: Trained, tmp_path: Path) -> None:
    directory = tmp_path / "adapter"
    export_adapter(at(trained, 4), directory)
    config = json.loads((directory / "adapter_config.json").read_text())
    (directory / "adapter_config.json").write_text(json.dumps(config | {"use_dora": True}))
    with pytest.raises(InputError, match="found use_dora True; this version reads plain LoRA"):
        export_whole(trained, 2, tmp_path / "out", adapter=directory)
    (directory / "adapter_config.json").write_text(json.dumps(config | {"r": 5}))
    with pytest.raises(InputError, match=r"lora_A.weight is \(3, 40\); beside this base it would be \(5, 40\)"):
        export_whole(trained, 2, tmp_path / "out", adapter=directory)
    (directory / "adapter_model.safetensors").unlink()
    with pytest.raises(InputError, match=r"has no adapter_model\.safetensors"):
        export_whole(trained, 2, tmp_path / "out", adapter=directory)


def test_what_peft_saves_goes_onto_a_base(trained: Trained, tmp_path: Path) -> None:
    base = export_whole(trained, 2, tmp_path / "base")
    config = LoraConfig(r=2, lora_alpha=3, target_modules=["q_proj", "gate_proj"], task_type="CAUSAL_LM")
    theirs = get_peft_model(base, config, autocast_adapter_dtype=False)
    theirs.save_pretrained(tmp_path / "theirs")
    file = tmp_path / "theirs" / "adapter_model.safetensors"
    noise = torch.Generator().manual_seed(0)
    save_file({name: torch.randn(held.shape, generator=noise) * 0.1 for name, held in load_file(file).items()}, file)
    adapted = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype="float32"), tmp_path / "theirs"
    ).eval()
    onto = export_whole(trained, 2, tmp_path / "onto", adapter=tmp_path / "theirs")
    with torch.no_grad():
        torch.testing.assert_close(onto(tokens()).logits, adapted(tokens()).logits, atol=1e-5, rtol=1e-5)


def test_without_lora_or_with_stacked_matrices_there_is_nothing_to_save(
    trained: Trained, tmp_path: Path, make_mixture: MakeMixture, make_recipe: MakeRecipe
) -> None:
    with pytest.raises(InputError, match="has no LoRA to save alone"):
        export_adapter(at(trained, 2), tmp_path / "adapter")
    alibi = {"position": "alibi", "norm": "layernorm", "bias": True, "tied": True}
    stacked = train(tmp_path / "stacked", make_mixture, make_recipe, **alibi)
    with pytest.raises(
        InputError, match=r"JAISLMHeadModel holds layers.0.attention.query.weight and .* --format hf merges"
    ):
        export_adapter(at(stacked, 4), tmp_path / "adapter")
    assert not (tmp_path / "adapter").exists()
