"""Llama and what is built like it: names, config.json out and in."""

from __future__ import annotations

from typing import Any

from trainer.huggingface.family import (
    QUERY_KEY_VALUE,
    Family,
    grouped,
    has,
    rope_config,
    rotated_part,
    rotates_all,
    shape_of,
    whole_heads,
)
from trainer.huggingface.names import Names
from trainer.huggingface.settings import Settings, rope
from trainer.model.shape import Shape

_FEEDFORWARD = {
    "mlp.gate_proj": ("feedforward.gate",),
    "mlp.up_proj": ("feedforward.up",),
    "mlp.down_proj": ("feedforward.down",),
}
_ATTENTION = {
    "self_attn.q_proj": ("attention.query",),
    "self_attn.k_proj": ("attention.key",),
    "self_attn.v_proj": ("attention.value",),
    "self_attn.o_proj": ("attention.output",),
}
_NORMS = {"input_layernorm": ("attention_norm",), "post_attention_layernorm": ("feedforward_norm",)}
_TOP = {"model.embed_tokens": "embedding", "model.norm": "final_norm", "lm_head": "unembedding"}
_PHI3 = {
    "self_attn.qkv_proj": QUERY_KEY_VALUE,
    "self_attn.o_proj": ("attention.output",),
    "mlp.gate_up_proj": ("feedforward.gate", "feedforward.up"),
    "mlp.down_proj": ("feedforward.down",),
}
_STARCODER2 = {"mlp.c_fc": ("feedforward.up",), "mlp.c_proj": ("feedforward.down",)}
_LAYER = "model.layers.{}."
LLAMA_NAMES = Names(_TOP, _LAYER, _ATTENTION | _FEEDFORWARD | _NORMS)
PHI3_NAMES = Names(_TOP, _LAYER, _PHI3 | _NORMS)
STARCODER2_NAMES = Names(_TOP, _LAYER, _ATTENTION | _STARCODER2 | _NORMS)


def _llama_shape(settings: Settings) -> Shape:
    settings.require("hidden_act", "silu", default="silu")
    bias = settings.flag("attention_bias", False)
    settings.require("mlp_bias", bias, default=False)
    if settings.values.get("sliding_window") is not None:
        settings.require("sliding_window", None)
    return shape_of(
        settings,
        rope(settings)
        | {"feedforward": "swiglu", "norm": "rmsnorm", "norm_eps": settings.number("rms_norm_eps", 1e-6)}
        | {"bias": bias, "tied": settings.flag("tie_word_embeddings", False)},
    )


def _llama_config(shape: Shape) -> dict[str, Any]:
    bias = shape.architecture.bias
    norm = {"rms_norm_eps": shape.architecture.norm_eps}
    biases = {"attention_bias": bias, "mlp_bias": bias, "head_dim": shape.head_dim, "hidden_act": "silu"}
    return grouped(shape) | rope_config(shape) | norm | biases


def _phi3_shape(settings: Settings) -> Shape:
    settings.require("hidden_act", "silu", default="silu")
    settings.require("sliding_window", None)
    return shape_of(
        settings,
        rope(settings)
        | {"feedforward": "swiglu", "norm": "rmsnorm", "norm_eps": settings.number("rms_norm_eps", 1e-5)}
        | {"bias": False, "tied": settings.flag("tie_word_embeddings", False)},
    )


def _phi3_config(shape: Shape) -> dict[str, Any]:
    # Phi-3 has a token of its own for padding, which this vocabulary may not have.
    own = {
        "rms_norm_eps": shape.architecture.norm_eps,
        "partial_rotary_factor": rotated_part(shape),
        "pad_token_id": None,
    }
    return grouped(shape) | rope_config(shape) | own | {"hidden_act": "silu"}


def _stablelm_shape(settings: Settings) -> Shape:
    settings.require("hidden_act", "silu", default="silu")
    for key in ("use_qkv_bias", "qk_layernorm", "use_parallel_residual"):
        settings.require(key, False, default=False)
    return shape_of(
        settings,
        rope(settings, share=0.25)
        | {"feedforward": "swiglu", "norm": "layernorm", "norm_eps": settings.number("layer_norm_eps", 1e-5)}
        | {"bias": False, "tied": settings.flag("tie_word_embeddings", False)},
    )


def _stablelm_config(shape: Shape) -> dict[str, Any]:
    own = {
        "layer_norm_eps": shape.architecture.norm_eps,
        "partial_rotary_factor": rotated_part(shape),
    }
    return grouped(shape) | rope_config(shape) | own | {"use_qkv_bias": False, "hidden_act": "silu"}


def _starcoder2_shape(settings: Settings) -> Shape:
    settings.require("hidden_act", "gelu", default="gelu_pytorch_tanh")
    settings.require("sliding_window", None)
    return shape_of(
        settings,
        rope(settings)
        | {"feedforward": "gelu", "norm": "layernorm", "norm_eps": settings.number("norm_epsilon", 1e-5)}
        | {"bias": settings.flag("use_bias", True), "tied": settings.flag("tie_word_embeddings", True)},
    )


def _starcoder2_config(shape: Shape) -> dict[str, Any]:
    own = {"norm_epsilon": shape.architecture.norm_eps, "use_bias": shape.architecture.bias, "hidden_act": "gelu"}
    dropout = {"residual_dropout": 0.0, "embedding_dropout": 0.0, "attention_dropout": 0.0, "sliding_window": None}
    return grouped(shape) | rope_config(shape) | own | dropout | {"head_dim": shape.head_dim}


LLAMA = Family(
    ("llama", "mistral"),
    "LlamaForCausalLM",
    LLAMA_NAMES,
    lambda s: has(s, position="rope", feedforward="swiglu", norm="rmsnorm") and rotates_all(s),
    _llama_config,
    _llama_shape,
)
PHI3 = Family(
    ("phi3",),
    "Phi3ForCausalLM",
    PHI3_NAMES,
    lambda s: has(s, position="rope", feedforward="swiglu", norm="rmsnorm", bias=False) and whole_heads(s),
    _phi3_config,
    _phi3_shape,
)
STABLELM = Family(
    ("stablelm",),
    "StableLmForCausalLM",
    LLAMA_NAMES,
    lambda s: has(s, position="rope", feedforward="swiglu", norm="layernorm", bias=False) and whole_heads(s),
    _stablelm_config,
    _stablelm_shape,
)
STARCODER2 = Family(
    ("starcoder2",),
    "Starcoder2ForCausalLM",
    STARCODER2_NAMES,
    lambda s: has(s, position="rope", feedforward="gelu", norm="layernorm") and rotates_all(s),
    _starcoder2_config,
    _starcoder2_shape,
)
