"""GPT-NeoX and GPT-2: names, config.json out and in."""

from __future__ import annotations

from typing import Any

from trainer.huggingface.family import QUERY_KEY_VALUE, Family, common, has, rotated_part, shape_of, whole_heads
from trainer.huggingface.names import Names
from trainer.huggingface.settings import Settings, rope
from trainer.model.shape import Architecture, Shape

NEOX_NAMES = Names(
    {"gpt_neox.embed_in": "embedding", "gpt_neox.final_layer_norm": "final_norm", "embed_out": "unembedding"},
    "gpt_neox.layers.{}.",
    {
        "input_layernorm": ("attention_norm",),
        "attention.query_key_value": QUERY_KEY_VALUE,
        "attention.dense": ("attention.output",),
        "post_attention_layernorm": ("feedforward_norm",),
        "mlp.dense_h_to_4h": ("feedforward.up",),
        "mlp.dense_4h_to_h": ("feedforward.down",),
    },
    heads="by head",
)
# GPT-2's; Jais, BTLM and Crystal have them too, and a gate.
GPT2_NAMES = Names(
    {
        "transformer.wte": "embedding",
        "transformer.wpe": "position_embedding",
        "transformer.ln_f": "final_norm",
        "lm_head": "unembedding",
    },
    "transformer.h.{}.",
    {
        "ln_1": ("attention_norm",),
        "attn.c_attn": QUERY_KEY_VALUE,
        "attn.c_proj": ("attention.output",),
        "ln_2": ("feedforward_norm",),
        "mlp.c_fc": ("feedforward.up",),
        "mlp.c_fc2": ("feedforward.gate",),
        "mlp.c_proj": ("feedforward.down",),
    },
    transposed=frozenset({"attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_fc2", "mlp.c_proj"}),
    pairs=True,
)


def _neox_shape(settings: Settings) -> Shape:
    settings.require("hidden_act", "gelu", default="gelu")
    settings.require("use_parallel_residual", False, default=True)
    settings.require("attention_bias", True, default=True)
    return shape_of(
        settings,
        rope(settings, share=0.25)
        | {"feedforward": "gelu", "norm": "layernorm", "norm_eps": settings.number("layer_norm_eps", 1e-5)}
        | {"bias": True, "tied": settings.flag("tie_word_embeddings", False)},
    )


def _neox_config(shape: Shape) -> dict[str, Any]:
    own = {"layer_norm_eps": shape.architecture.norm_eps, "hidden_act": "gelu", "attention_bias": True}
    rotary = {
        "rotary_pct": rotated_part(shape),
        "rotary_emb_base": shape.architecture.rotary_base,
    }
    return common(shape) | own | rotary | {"use_parallel_residual": False}


def gpt2_dimensions(settings: Settings) -> dict[str, int]:
    width, heads = settings.integer("n_embd"), settings.integer("n_head")
    return {
        "layers": settings.integer("n_layer"),
        "width": width,
        "heads": heads,
        "kv_heads": settings.integer("n_head_kv", heads),
        "head_dim": settings.integer("head_dim", max(1, width // heads)),
        "filter": settings.integer("n_inner", 4 * width),
        "vocab_size": settings.integer("vocab_size"),
    }


def _gpt2_shape(settings: Settings) -> Shape:
    settings.require("activation_function", "gelu", default="gelu_new")
    settings.require("tie_word_embeddings", True, default=True)
    architecture = Architecture(
        position="learned",
        feedforward="gelu",
        norm="layernorm",
        bias=True,
        tied=True,
        norm_eps=settings.number("layer_norm_epsilon", 1e-5),
        max_positions=settings.integer("n_positions"),
    )
    return Shape(**gpt2_dimensions(settings), architecture=architecture)


def gpt2_config(shape: Shape) -> dict[str, Any]:
    return {
        "vocab_size": shape.vocab_size,
        "n_embd": shape.width,
        "n_layer": shape.layers,
        "n_head": shape.heads,
        "n_inner": shape.filter,
        "n_positions": shape.architecture.max_positions,
        "activation_function": shape.architecture.feedforward,
        "layer_norm_epsilon": shape.architecture.norm_eps,
        "tie_word_embeddings": shape.architecture.tied,
    } | {f"{part}_pdrop": 0.0 for part in ("attn", "embd", "resid")}


GPT_NEOX = Family(
    ("gpt_neox",),
    "GPTNeoXForCausalLM",
    NEOX_NAMES,
    lambda s: (
        has(s, position="rope", feedforward="gelu", norm="layernorm", bias=True)
        and whole_heads(s)
        and s.kv_heads == s.heads
    ),
    _neox_config,
    _neox_shape,
)
GPT2 = Family(
    ("gpt2",),
    "GPT2LMHeadModel",
    GPT2_NAMES,
    lambda s: (
        has(s, position="learned", feedforward="gelu", norm="layernorm", bias=True, tied=True)
        and whole_heads(s)
        and s.kv_heads == s.heads
    ),
    gpt2_config,
    _gpt2_shape,
)
