"""Our own class, in the layout of Jais, BTLM and CrystalCoder: config.json out and in. Its code: modeling_winnow.py."""

from __future__ import annotations

from typing import Any

from trainer.huggingface.family import Family, has, rotary_share, whole_heads
from trainer.huggingface.gpt import GPT2_NAMES, gpt2_config, gpt2_dimensions
from trainer.huggingface.settings import Settings
from trainer.model.shape import Architecture, Interpolation, Mup, Shape

MODELLING_FILE = "modeling_winnow.py"
_POSITIONS = {"alibi": "alibi", "rotary": "rope", "learned": "learned"}


def _winnow_shape(settings: Settings) -> Shape:
    settings.require("weight_bits", None)
    settings.require("activation_function", "swiglu", "gelu")
    settings.require("position_embedding_type", *_POSITIONS)
    settings.require("norm_type", "layernorm", "rmsnorm", default="layernorm")
    dimensions = gpt2_dimensions(settings)
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
        rotary_share=rotary_share(rotary, dimensions["head_dim"]) if position == "rope" else 1.0,
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
    config = gpt2_config(shape) | {
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


def is_jais(shape: Shape) -> bool:
    """Whether a decoder is one of Jais's, with nothing that Winnow's own class adds."""
    plain = has(shape, position="alibi", feedforward="swiglu", norm="layernorm", bias=True, tied=True)
    return plain and shape.architecture.interpolation is None and whole_heads(shape) and shape.kv_heads == shape.heads


WINNOW = Family(
    ("jais", "btlm", "crystalcoder"),
    "WinnowForCausalLM",
    GPT2_NAMES,
    lambda s: True,
    _winnow_config,
    _winnow_shape,
    multiplies=True,
)
