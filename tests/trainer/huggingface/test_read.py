"""Directories that transformers has written, as decoders; and directories that cannot be one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from manifest.errors import InputError
from trainer.huggingface.read import read_hf

LLAMA: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 61,
}
GPT: dict[str, Any] = {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 61, "activation_function": "gelu"}
CASES: list[tuple[str, dict[str, Any]]] = [
    ("llama", LLAMA | {"tie_word_embeddings": False}),
    ("llama", LLAMA | {"tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True, "rope_theta": 5e5}),
    ("mistral", LLAMA | {"sliding_window": None, "head_dim": 6}),
    ("phi3", LLAMA | {"partial_rotary_factor": 0.5, "pad_token_id": 0}),
    ("stablelm", LLAMA),
    ("starcoder2", LLAMA | {"hidden_act": "gelu", "sliding_window": None}),
    ("gpt_neox", LLAMA | {"use_parallel_residual": False, "num_key_value_heads": None}),
    ("gpt2", GPT),
]


def saved(directory: Path, kind: str, settings: dict[str, Any], **options: Any) -> transformers.PreTrainedModel:
    """A model of random weights, written by transformers."""
    torch.manual_seed(0)
    settings = {key: value for key, value in settings.items() if value is not None or key == "sliding_window"}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **settings)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.3)
    model.to(options.pop("dtype", torch.float32)).save_pretrained(directory, **options)
    return model


@pytest.mark.parametrize(("kind", "settings"), CASES)
def test_the_decoder_has_the_logits_of_the_model(kind: str, settings: dict[str, Any], tmp_path: Path) -> None:
    model = saved(tmp_path, kind, settings)
    read = read_hf(tmp_path)
    tokens = torch.randint(0, 61, (2, 13), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found, expected = read.decoder()(tokens), model(tokens).logits
    torch.testing.assert_close(found[..., :61], expected, atol=1e-5, rtol=1e-5)
    assert read.shape.architecture.tied == model.config.tie_word_embeddings
    assert read.shape.vocab_size == 61


def test_several_files_and_half_precision_are_read(tmp_path: Path) -> None:
    model = saved(tmp_path, "llama", LLAMA, dtype=torch.bfloat16, max_shard_size="10KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
    read = dict(read_hf(tmp_path).tensors())
    query = model.model.layers[1].self_attn.q_proj.weight
    assert torch.equal(read["layers.1.attention.query.weight"], query.detach().float())


def test_a_configuration_of_transformers_4_is_read(tmp_path: Path) -> None:
    saved(tmp_path, "stablelm", LLAMA | {"partial_rotary_factor": 0.5, "rope_theta": 777.0})
    edit(tmp_path, rope_parameters=None, rope_theta=777.0, partial_rotary_factor=0.5, rope_scaling=None)
    architecture = read_hf(tmp_path).shape.architecture
    assert (architecture.rotary_base, architecture.rotary_share) == (777.0, 0.5)


def test_names_without_their_prefix_and_masks_of_old_versions_are_read(tmp_path: Path) -> None:
    model = saved(tmp_path, "gpt2", GPT)
    file = tmp_path / "model.safetensors"
    old = {name.removeprefix("transformer."): value for name, value in load_file(file).items()}
    save_file(old | {"h.0.attn.bias": torch.ones(1, 1, 4, 4)}, file)
    read = dict(read_hf(tmp_path).tensors())
    assert torch.equal(read["embedding.weight"][:61], model.transformer.wte.weight.detach())


def edit(directory: Path, **changes: Any) -> None:
    file = directory / "config.json"
    content = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({key: value for key, value in content.items() if value != "gone"}))


def drop(directory: Path, name: str) -> None:
    weights = load_file(directory / "model.safetensors")
    del weights[name]
    save_file(weights, directory / "model.safetensors")


def pickled(directory: Path) -> None:
    torch.save(load_file(directory / "model.safetensors"), directory / "pytorch_model.bin")
    (directory / "model.safetensors").unlink()


def cut(directory: Path) -> None:
    file = directory / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def with_more(directory: Path) -> None:
    weights = load_file(directory / "model.safetensors")
    save_file(weights | {"model.layers.0.self_attn.q_norm.weight": torch.ones(8)}, directory / "model.safetensors")


def indexed_badly(directory: Path) -> None:
    index = {"weight_map": {"model.norm.weight": "model-00002-of-00002.safetensors"}}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))


SCALED = {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0}
BROKEN: list[tuple[Callable[[Path], None], str]] = [
    (lambda d: (d / "config.json").unlink(), r"has no config\.json"),
    (lambda d: (d / "config.json").write_text("{"), "is no JSON"),
    (lambda d: (d / "config.json").write_text("[]"), "holds a list; expected an object"),
    (lambda d: edit(d, model_type="gone"), "has no model_type"),
    (lambda d: edit(d, model_type="t5"), r"model_type is 't5'; Winnow's decoder can be one of llama, mistral, phi3"),
    (lambda d: edit(d, rope_parameters=SCALED), "positions are scaled .rope_type 'llama3'"),
    (lambda d: edit(d, hidden_act="relu"), "hidden_act is 'relu'; Winnow's decoder has only 'silu'"),
    (lambda d: edit(d, attention_bias=True), "mlp_bias is False; Winnow's decoder has only True"),
    (lambda d: edit(d, num_hidden_layers=0), "num_hidden_layers is 0; expected a whole number above 0"),
    (lambda d: edit(d, rms_norm_eps=-1.0), "norm_eps: Input should be greater than 0"),
    (lambda d: edit(d, num_key_value_heads=3), "do not divide into groups of 3"),
    (lambda d: edit(d, num_hidden_layers=3), "lacks 9 of the 30 tensors"),
    (lambda d: edit(d, vocab_size=60), r"a table of 61 rows, for a vocabulary of 60, which does not go with"),
    (lambda d: edit(d, intermediate_size=40), r"gate_proj\.weight is \(48, 32\), which does not go with"),
    (lambda d: (d / "model.safetensors").unlink(), "give a directory with a model's weights"),
    (lambda d: drop(d, "model.norm.weight"), r"lacks 1 of the 21 tensors .* model\.norm\.weight among them"),
    (with_more, "has 1 tensors that Winnow's decoder has no place for, .*q_norm"),
    (pickled, r"weights as pickles \(pytorch_model\.bin\).*save_pretrained"),
    (cut, "is damaged or half written"),
    (indexed_badly, r"model-00002-of-00002\.safetensors is missing"),
]


@pytest.mark.parametrize(("harm", "said"), BROKEN)
def test_a_directory_that_cannot_be_read_says_why(harm: Callable[[Path], None], said: str, tmp_path: Path) -> None:
    saved(tmp_path, "llama", LLAMA)
    harm(tmp_path)
    with pytest.raises(InputError, match=said):
        dict(read_hf(tmp_path).tensors())


def test_a_tokenizer_comes_with_it_or_is_missed(tmp_path: Path) -> None:
    saved(tmp_path, "llama", LLAMA)
    (tmp_path / "tokenizer.model").write_bytes(b"sentencepiece")
    with pytest.raises(InputError, match=r"has no tokenizer\.json; AutoTokenizer.*makes one of tokenizer\.model"):
        read_hf(tmp_path).tokenizer()
    (tmp_path / "tokenizer.json").write_text("{}")
    assert read_hf(tmp_path).tokenizer() == tmp_path / "tokenizer.json"
