"""Which Hugging Face class expresses a decoder, and its config.json in both ways.

    Llama       RoPE, SwiGLU, RMSNorm; biases or not, any head size           Mistral is read as one
    Phi-3       partial RoPE, SwiGLU, RMSNorm, no biases
    StableLM    full or partial RoPE, SwiGLU, LayerNorm, no biases
    StarCoder2  RoPE, GELU, LayerNorm; biases or not
    GPT-NeoX    partial RoPE, GELU, LayerNorm, biases
    GPT-2       learned positions, GELU, LayerNorm, biases, tied
    Winnow      everything: one file beside the weights (modeling_winnow.py); Jais, BTLM, CrystalCoder are read as one

All but the last have no multipliers, so muP's must be folded into the weights before (`fold.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from manifest.errors import InputError
from trainer.huggingface.names import Names
from trainer.huggingface.settings import Settings, rope
from trainer.model.shape import Architecture, Interpolation, Mup, Shape

MODELLING_FILE = "modeling_winnow.py"


@dataclass(frozen=True)
class Family:
    """A class of models. kinds: the `model_type`s that it reads; the first is what it writes.

    names, config: of a shape, whose multipliers are folded unless `multiplies`. shape: of a config.json.
    """

    kinds: tuple[str, ...]
    architecture: str
    names: Callable[[Shape], Names]
    expresses: Callable[[Shape], bool]
    config: Callable[[Shape], dict[str, Any]]
    shape: Callable[[Settings], Shape]
    multiplies: bool = False


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
_QUERY_KEY_VALUE = ("attention.query", "attention.key", "attention.value")


def _llama_names(shape: Shape) -> Names:
    return Names(_TOP, "model.layers.{}.", _ATTENTION | _FEEDFORWARD | _NORMS)


def _phi3_names(shape: Shape) -> Names:
    layer = {
        "self_attn.qkv_proj": _QUERY_KEY_VALUE,
        "self_attn.o_proj": ("attention.output",),
        "mlp.gate_up_proj": ("feedforward.gate", "feedforward.up"),
        "mlp.down_proj": ("feedforward.down",),
    }
    return Names(_TOP, "model.layers.{}.", layer | _NORMS)


def _starcoder2_names(shape: Shape) -> Names:
    layer = {"mlp.c_fc": ("feedforward.up",), "mlp.c_proj": ("feedforward.down",)}
    return Names(_TOP, "model.layers.{}.", _ATTENTION | layer | _NORMS)


def _neox_names(shape: Shape) -> Names:
    top = {"gpt_neox.embed_in": "embedding", "gpt_neox.final_layer_norm": "final_norm", "embed_out": "unembedding"}
    layer = {
        "attention.query_key_value": _QUERY_KEY_VALUE,
        "attention.dense": ("attention.output",),
        "mlp.dense_h_to_4h": ("feedforward.up",),
        "mlp.dense_4h_to_h": ("feedforward.down",),
    }
    return Names(top, "gpt_neox.layers.{}.", layer | _NORMS, heads="by head")


def _gpt2_names(shape: Shape) -> Names:
    """GPT-2's; Jais, BTLM and Crystal have them too, and a gate."""
    top = {"wte": "embedding", "wpe": "position_embedding", "ln_f": "final_norm"}
    layer = {
        "ln_1": ("attention_norm",),
        "attn.c_attn": _QUERY_KEY_VALUE,
        "attn.c_proj": ("attention.output",),
        "ln_2": ("feedforward_norm",),
        "mlp.c_fc": ("feedforward.up",),
        "mlp.c_fc2": ("feedforward.gate",),
        "mlp.c_proj": ("feedforward.down",),
    }
    matrices = frozenset({"attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_fc2", "mlp.c_proj"})
    named = {f"transformer.{theirs}": ours for theirs, ours in top.items()} | {"lm_head": "unembedding"}
    return Names(named, "transformer.h.{}.", layer, transposed=matrices, pairs=True)


def _whole_heads(shape: Shape) -> bool:
    return shape.heads * shape.head_dim == shape.width


def _is(shape: Shape, **wanted: object) -> bool:
    return all(getattr(shape.architecture, key) == value for key, value in wanted.items())


def _rotates_all(shape: Shape) -> bool:
    return shape.rotary_dims == shape.head_dim


def _common(shape: Shape) -> dict[str, Any]:
    """What most config.json's have in common."""
    return {
        "vocab_size": shape.vocab_size,
        "hidden_size": shape.width,
        "intermediate_size": shape.filter,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "tie_word_embeddings": shape.architecture.tied,
    }


def _grouped(shape: Shape) -> dict[str, Any]:
    return _common(shape) | {"num_key_value_heads": shape.kv_heads}


def _rope_config(shape: Shape) -> dict[str, Any]:
    """As transformers 4 writes it, which 5 reads too."""
    return {"rope_theta": shape.architecture.rotary_base}


def _share(shape: Shape) -> float:
    """The rotated part of a head, such that the product with head_dim is whole."""
    return shape.rotary_dims / shape.head_dim


def _shape(settings: Settings, architecture: dict[str, Any], **dimensions: int) -> Shape:
    """A shape, of the names that most config.json's have."""
    width, heads = settings.integer("hidden_size"), settings.integer("num_attention_heads")
    common = {
        "layers": settings.integer("num_hidden_layers"),
        "width": width,
        "heads": heads,
        "kv_heads": settings.integer("num_key_value_heads", heads),
        "head_dim": settings.integer("head_dim", max(1, width // heads)),
        "filter": settings.integer("intermediate_size"),
        "vocab_size": settings.integer("vocab_size"),
    }
    return Shape(**(common | dimensions), architecture=Architecture(**architecture))


def _llama_shape(settings: Settings) -> Shape:
    settings.require("hidden_act", "silu", default="silu")
    bias = settings.flag("attention_bias", False)
    settings.require("mlp_bias", bias, default=False)
    if settings.values.get("sliding_window") is not None:
        settings.require("sliding_window", None)
    return _shape(
        settings,
        rope(settings)
        | {"feedforward": "swiglu", "norm": "rmsnorm", "norm_eps": settings.number("rms_norm_eps", 1e-6)}
        | {"bias": bias, "tied": settings.flag("tie_word_embeddings", False)},
    )


def _llama_config(shape: Shape) -> dict[str, Any]:
    bias = shape.architecture.bias
    norm = {"rms_norm_eps": shape.architecture.norm_eps}
    biases = {"attention_bias": bias, "mlp_bias": bias, "head_dim": shape.head_dim, "hidden_act": "silu"}
    return _grouped(shape) | _rope_config(shape) | norm | biases


def _phi3_shape(settings: Settings) -> Shape:
    settings.require("hidden_act", "silu", default="silu")
    settings.require("sliding_window", None)
    return _shape(
        settings,
        rope(settings)
        | {"feedforward": "swiglu", "norm": "rmsnorm", "norm_eps": settings.number("rms_norm_eps", 1e-5)}
        | {"bias": False, "tied": settings.flag("tie_word_embeddings", False)},
    )


def _phi3_config(shape: Shape) -> dict[str, Any]:
    # Phi-3 has a token of its own for padding, which this vocabulary may not have.
    own = {"rms_norm_eps": shape.architecture.norm_eps, "partial_rotary_factor": _share(shape), "pad_token_id": None}
    return _grouped(shape) | _rope_config(shape) | own | {"hidden_act": "silu"}


def _stablelm_shape(settings: Settings) -> Shape:
    settings.require("hidden_act", "silu", default="silu")
    for key in ("use_qkv_bias", "qk_layernorm", "use_parallel_residual"):
        settings.require(key, False, default=False)
    return _shape(
        settings,
        rope(settings, share=0.25)
        | {"feedforward": "swiglu", "norm": "layernorm", "norm_eps": settings.number("layer_norm_eps", 1e-5)}
        | {"bias": False, "tied": settings.flag("tie_word_embeddings", False)},
    )


def _stablelm_config(shape: Shape) -> dict[str, Any]:
    own = {"layer_norm_eps": shape.architecture.norm_eps, "partial_rotary_factor": _share(shape)}
    return _grouped(shape) | _rope_config(shape) | own | {"use_qkv_bias": False, "hidden_act": "silu"}


def _starcoder2_shape(settings: Settings) -> Shape:
    settings.require("hidden_act", "gelu", default="gelu_pytorch_tanh")
    settings.require("sliding_window", None)
    return _shape(
        settings,
        rope(settings)
        | {"feedforward": "gelu", "norm": "layernorm", "norm_eps": settings.number("norm_epsilon", 1e-5)}
        | {"bias": settings.flag("use_bias", True), "tied": settings.flag("tie_word_embeddings", True)},
    )


def _starcoder2_config(shape: Shape) -> dict[str, Any]:
    own = {"norm_epsilon": shape.architecture.norm_eps, "use_bias": shape.architecture.bias, "hidden_act": "gelu"}
    dropout = {"residual_dropout": 0.0, "embedding_dropout": 0.0, "attention_dropout": 0.0, "sliding_window": None}
    return _grouped(shape) | _rope_config(shape) | own | dropout | {"head_dim": shape.head_dim}


def _neox_shape(settings: Settings) -> Shape:
    settings.require("hidden_act", "gelu", default="gelu")
    settings.require("use_parallel_residual", False, default=True)
    settings.require("attention_bias", True, default=True)
    return _shape(
        settings,
        rope(settings, share=0.25)
        | {"feedforward": "gelu", "norm": "layernorm", "norm_eps": settings.number("layer_norm_eps", 1e-5)}
        | {"bias": True, "tied": settings.flag("tie_word_embeddings", False)},
    )


def _neox_config(shape: Shape) -> dict[str, Any]:
    own = {"layer_norm_eps": shape.architecture.norm_eps, "hidden_act": "gelu", "attention_bias": True}
    rotary = {"rotary_pct": _share(shape), "rotary_emb_base": shape.architecture.rotary_base}
    return _common(shape) | own | rotary | {"use_parallel_residual": False}


def _gpt2_dimensions(settings: Settings) -> dict[str, int]:
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
    return Shape(**_gpt2_dimensions(settings), architecture=architecture)


def _gpt2_config(shape: Shape) -> dict[str, Any]:
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


_POSITIONS = {"alibi": "alibi", "rotary": "rope", "learned": "learned"}


def _winnow_shape(settings: Settings) -> Shape:
    settings.require("weight_bits", None)
    settings.require("activation_function", "swiglu", "gelu")
    settings.require("position_embedding_type", *_POSITIONS)
    settings.require("norm_type", "layernorm", "rmsnorm", default="layernorm")
    dimensions = _gpt2_dimensions(settings)
    position = _POSITIONS[settings.text("position_embedding_type")]
    scaling = settings.values.get("alibi_scaling")
    rotary = settings.integer("rotary_dim", dimensions["head_dim"])
    architecture = Architecture(
        position=position,
        feedforward=settings.text("activation_function"),
        norm=settings.text("norm_type", "layernorm"),
        bias=settings.flag("use_bias", True),
        tied=settings.flag("tie_word_embeddings", True),
        norm_eps=settings.number("layer_norm_epsilon", 1e-5),
        rotary_share=rotary / dimensions["head_dim"] if position == "rope" else 1.0,
        rotary_base=settings.number("rotary_base", 10000.0),
        max_positions=settings.integer("n_positions") if position == "learned" else None,
        mup=_mup_of(settings, dimensions),
        interpolation=None
        if not scaling
        else Interpolation(factor=scaling.get("factor"), trained_length=scaling.get("train_seq_len")),
    )
    return Shape(**dimensions, architecture=architecture)


def _mup_of(settings: Settings, dimensions: dict[str, int]) -> Mup | None:
    """muP's constants. Its base is what Winnow wrote, or what the width's scale says."""
    width_scale = settings.number("mup_width_scale", 1.0)
    embedding, logits = settings.number("mup_embeddings_scale", 1.0), settings.number("mup_output_alpha", 1.0)
    by_d = settings.flag("mup_scale_qk_dot_by_d", False)
    if (width_scale, embedding, logits, by_d) == (1.0, 1.0, 1.0, False) and "mup_base_width" not in settings.values:
        return None
    return Mup(
        base_width=settings.number("mup_base_width", dimensions["width"] * width_scale),
        base_filter=settings.number("mup_base_filter", dimensions["filter"] * width_scale),
        embedding=embedding,
        logits=logits,
        init_std=settings.number("initializer_range", 0.02),
        attention="1/d" if by_d else "1/sqrt(d)",
    )


def _winnow_config(shape: Shape) -> dict[str, Any]:
    architecture = shape.architecture
    positions = {ours: theirs for theirs, ours in _POSITIONS.items()}
    config = _gpt2_config(shape) | {
        "n_head_kv": shape.kv_heads,
        "head_dim": shape.head_dim,
        "norm_type": architecture.norm,
        "use_bias": architecture.bias,
        "position_embedding_type": positions[architecture.position],
        "alibi_scaling": _scaling(architecture.interpolation),
        "scale_attn_by_inverse_layer_idx": False,  # what else readers of Jais look for
        "reorder_and_upcast_attn": False,
        "auto_map": {
            "AutoConfig": f"{MODELLING_FILE.removesuffix('.py')}.WinnowConfig",
            "AutoModelForCausalLM": f"{MODELLING_FILE.removesuffix('.py')}.WinnowForCausalLM",
        },
    }
    if architecture.position == "rope":
        config |= {"rotary_dim": shape.rotary_dims, "rotary_base": architecture.rotary_base}
    return config | _mup_config(shape)


def _scaling(interpolation: Interpolation | None) -> dict[str, Any] | None:
    if interpolation is None:
        return None
    if interpolation.factor is not None:
        return {"type": "linear", "factor": interpolation.factor}
    return {"type": "linear", "train_seq_len": interpolation.trained_length}


def _mup_config(shape: Shape) -> dict[str, Any]:
    mup = shape.architecture.mup
    if mup is None:
        scales = {"mup_width_scale": 1.0, "mup_embeddings_scale": 1.0, "mup_output_alpha": 1.0}
        return scales | {"mup_scale_qk_dot_by_d": False, "initializer_range": shape.architecture.init_std}
    return {
        "mup_width_scale": mup.base_width / shape.width,
        "mup_embeddings_scale": mup.embedding,
        "mup_output_alpha": mup.logits,
        "mup_scale_qk_dot_by_d": mup.attention == "1/d",
        "mup_base_width": mup.base_width,
        "mup_base_filter": mup.base_filter,
        "initializer_range": mup.init_std,
    }


LLAMA = Family(
    ("llama", "mistral"),
    "LlamaForCausalLM",
    _llama_names,
    lambda s: _is(s, position="rope", feedforward="swiglu", norm="rmsnorm") and _rotates_all(s),
    _llama_config,
    _llama_shape,
)
PHI3 = Family(
    ("phi3",),
    "Phi3ForCausalLM",
    _phi3_names,
    lambda s: _is(s, position="rope", feedforward="swiglu", norm="rmsnorm", bias=False) and _whole_heads(s),
    _phi3_config,
    _phi3_shape,
)
STABLELM = Family(
    ("stablelm",),
    "StableLmForCausalLM",
    _llama_names,
    lambda s: _is(s, position="rope", feedforward="swiglu", norm="layernorm", bias=False) and _whole_heads(s),
    _stablelm_config,
    _stablelm_shape,
)
STARCODER2 = Family(
    ("starcoder2",),
    "Starcoder2ForCausalLM",
    _starcoder2_names,
    lambda s: _is(s, position="rope", feedforward="gelu", norm="layernorm") and _rotates_all(s),
    _starcoder2_config,
    _starcoder2_shape,
)
GPT_NEOX = Family(
    ("gpt_neox",),
    "GPTNeoXForCausalLM",
    _neox_names,
    lambda s: (
        _is(s, position="rope", feedforward="gelu", norm="layernorm", bias=True)
        and _whole_heads(s)
        and s.kv_heads == s.heads
    ),
    _neox_config,
    _neox_shape,
)
GPT2 = Family(
    ("gpt2",),
    "GPT2LMHeadModel",
    _gpt2_names,
    lambda s: (
        _is(s, position="learned", feedforward="gelu", norm="layernorm", bias=True, tied=True)
        and _whole_heads(s)
        and s.kv_heads == s.heads
    ),
    _gpt2_config,
    _gpt2_shape,
)
WINNOW = Family(
    ("jais", "btlm", "crystalcoder"),
    "WinnowForCausalLM",
    _gpt2_names,
    lambda s: True,
    _winnow_config,
    _winnow_shape,
    multiplies=True,
)
FAMILIES = (LLAMA, PHI3, STABLELM, STARCODER2, GPT_NEOX, GPT2, WINNOW)


def is_jais(shape: Shape) -> bool:
    """Whether a decoder is one of Jais's, with nothing that Winnow's own class adds."""
    plain = _is(shape, position="alibi", feedforward="swiglu", norm="layernorm", bias=True, tied=True)
    return plain and shape.architecture.interpolation is None and _whole_heads(shape) and shape.kv_heads == shape.heads


def family_for(shape: Shape) -> Family:
    """The first family that expresses a decoder: a class of transformers if there is one."""
    return next(family for family in FAMILIES if family.expresses(shape))


def family_of(settings: Settings) -> Family:
    """The family of a config.json. Raises InputError if it is none of them."""
    kind = settings.text("model_type")
    for family in FAMILIES:
        if kind in family.kinds:
            return family
    known = ", ".join(kind for family in FAMILIES for kind in family.kinds)
    raise InputError(f"{settings.file}: model_type is {kind!r}; Winnow's decoder can be one of {known}")
