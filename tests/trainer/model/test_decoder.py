from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from trainer.model.decoder import Decoder, build
from trainer.model.shape import Architecture, Mup, Shape

MUP = Mup(base_width=32, base_filter=64, embedding=10.0, logits=1.5, init_std=0.05)

LLAMA_NAMES = {
    "self_attn.q_proj": "attention.query",
    "self_attn.k_proj": "attention.key",
    "self_attn.v_proj": "attention.value",
    "self_attn.o_proj": "attention.output",
    "mlp.gate_proj": "feedforward.gate",
    "mlp.up_proj": "feedforward.up",
    "mlp.down_proj": "feedforward.down",
    "input_layernorm": "attention_norm",
    "post_attention_layernorm": "feedforward_norm",
    "model.layers": "layers",
    "model.embed_tokens": "embedding",
    "model.norm": "final_norm",
    "lm_head": "unembedding",
}


def shape(**changes: Any) -> Shape:
    architecture: dict[str, Any] = {
        "position": "alibi",
        "feedforward": "swiglu",
        "norm": "layernorm",
        "bias": True,
        "tied": True,
        "mup": MUP,
    }
    sizes = {"layers": 2, "width": 32, "heads": 4, "kv_heads": 4, "head_dim": 8, "filter": 48, "vocab_size": 61}
    architecture |= {key: value for key, value in changes.items() if key not in sizes}
    sizes |= {key: value for key, value in changes.items() if key in sizes}
    return Shape(**sizes, architecture=Architecture(**architecture))


def renamed(name: str) -> str:
    for theirs, ours in LLAMA_NAMES.items():
        name = name.replace(theirs, ours)
    return name


def test_rope_rmsnorm_swiglu_and_grouped_heads_give_the_logits_of_llama() -> None:
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=48,
        rms_norm_eps=1e-5,
        tie_word_embeddings=False,
        attn_implementation="eager",
    )
    torch.manual_seed(0)
    llama = LlamaForCausalLM(config).eval()
    weights = {name: torch.randn_like(value) * 0.3 for name, value in llama.state_dict().items()}
    llama.load_state_dict(weights)
    ours = Decoder(shape(position="rope", norm="rmsnorm", bias=False, tied=False, mup=None, kv_heads=2, vocab_size=64))
    ours.load_state_dict({renamed(name): value for name, value in weights.items()})
    tokens = torch.randint(0, 64, (3, 21))
    with torch.no_grad():
        torch.testing.assert_close(ours(tokens), llama(tokens).logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("position", ["alibi", "rope"])
def test_a_token_does_not_see_what_comes_after_it(position: str) -> None:
    decoder = build(shape(position=position), seed=1)
    tokens = torch.randint(0, 61, (1, 12))
    changed = tokens.clone()
    changed[0, 8:] = (changed[0, 8:] + 1) % 61
    with torch.no_grad():
        before, after = decoder(tokens), decoder(changed)
    torch.testing.assert_close(before[:, :8], after[:, :8], atol=0, rtol=0)
    assert not torch.allclose(before[:, 8:], after[:, 8:])


@pytest.mark.parametrize("feedforward", ["swiglu", "gelu"])
@pytest.mark.parametrize("norm", ["layernorm", "rmsnorm"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("tied", [True, False])
def test_the_closed_form_counts_the_parameters_there_are(feedforward: str, norm: str, bias: bool, tied: bool) -> None:
    wanted = shape(feedforward=feedforward, norm=norm, bias=bias, tied=tied, kv_heads=2, head_dim=6)
    with torch.device("meta"):
        decoder = Decoder(wanted)
    assert wanted.parameters == sum(parameter.numel() for parameter in decoder.parameters())


def test_btlm_has_two_thousand_six_hundred_and_forty_million_parameters() -> None:
    full = shape(layers=32, width=2560, heads=32, kv_heads=32, head_dim=80, filter=6826, vocab_size=50257)
    with torch.device("meta"):
        counted = sum(parameter.numel() for parameter in Decoder(full).parameters())
    assert full.parameters == counted
    assert counted == pytest.approx(2.65e9, rel=0.01)


def test_a_seed_gives_the_same_weights_whatever_else_is_in_the_model() -> None:
    alone, among_more = build(shape(layers=1), seed=3), build(shape(layers=3), seed=3)
    torch.testing.assert_close(alone.embedding.weight, among_more.embedding.weight, atol=0, rtol=0)
    first, second = (dict(build(shape(), seed=seed).named_parameters()) for seed in (3, 4))
    assert not torch.equal(first["embedding.weight"], second["embedding.weight"])
    query, key = first["layers.0.attention.query.weight"], first["layers.0.attention.key.weight"]
    assert not torch.equal(query, key)


def test_recomputing_activations_changes_no_gradient() -> None:
    tokens = torch.randint(0, 61, (2, 10))
    gradients = []
    for recompute in (False, True):
        decoder = build(shape(), seed=0, recompute=recompute)
        decoder(tokens).square().mean().backward()
        gradients.append({name: parameter.grad for name, parameter in decoder.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], atol=0, rtol=0)
