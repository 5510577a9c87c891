"""What muP prescribes per parameter, and the initialisation that follows from it.

m = width / base_width, m_f = filter / base_filter, L layers, σ = init_std (BTLM's configuration; both multipliers are
10 there, and differ as soon as a filter is rounded):

    role                 init std           learning rate    decay    forward
    embedding            σ                  η                yes      × embedding
    hidden (q k v, in)   σ / √m             η / m            yes      –
    attention output     σ / √(m · 2L)      η / m            yes      –
    feed-forward output  σ / √(m_f · 2L)    η / m_f          yes      –
    gain, bias           1, 0               η                no       –
    logits               –                  –                –        × logits / m
    attention scores     –                  –                –        / head_dim

LoRA (model/adapters.py): A, which reads what its matrix reads, has that matrix's rate; B, which reads `rank` numbers at
any width, has η. Hayou et al., 2024 ("LoRA+", arXiv 2402.12354) find that B's rate must not fall with the width as A's.

Without muP: m = m_f = 1, forward multipliers 1, scores / √head_dim. Normals are truncated at ± 2 std.
"""

from __future__ import annotations

import math
from enum import Enum

import torch
from torch import nn

from manifest.identity import hash64
from trainer.model.shape import Shape


class Role(Enum):
    """What a parameter does, as far as its initialisation and its learning rate are concerned."""

    EMBEDDING = "embedding"
    HIDDEN = "hidden"
    ATTENTION_OUTPUT = "attention output"
    FEEDFORWARD_OUTPUT = "feed-forward output"
    LORA_A = "lora a"
    LORA_A_OF_FEEDFORWARD_OUTPUT = "lora a of the feed-forward output"
    LORA_B = "lora b"
    GAIN = "gain"
    BIAS = "bias"


def role_of(name: str) -> Role:
    """The role of a decoder's parameter, by its name."""
    if name.endswith(".bias"):
        return Role.BIAS
    if name.endswith(".lora_b"):
        return Role.LORA_B
    if name.endswith(".lora_a"):
        return Role.LORA_A_OF_FEEDFORWARD_OUTPUT if name.endswith("feedforward.down.lora_a") else Role.LORA_A
    if name.endswith("norm.weight"):
        return Role.GAIN
    if name.rsplit(".", 1)[0] in ("embedding", "unembedding", "position_embedding"):
        return Role.EMBEDDING
    if name.endswith("attention.output.weight"):
        return Role.ATTENTION_OUTPUT
    if name.endswith("feedforward.down.weight"):
        return Role.FEEDFORWARD_OUTPUT
    return Role.HIDDEN


def width_multiplier(shape: Shape) -> float:
    """m."""
    mup = shape.architecture.mup
    return shape.width / mup.base_width if mup else 1.0


def filter_multiplier(shape: Shape) -> float:
    """m_f."""
    mup = shape.architecture.mup
    return shape.filter / mup.base_filter if mup else 1.0


def init_std(shape: Shape, role: Role) -> float:
    """The standard deviation (before truncation) that a matrix starts with."""
    base = shape.architecture.mup.init_std if shape.architecture.mup else shape.architecture.init_std
    residual = math.sqrt(2 * shape.layers)
    if role is Role.EMBEDDING:
        return base
    if role is Role.ATTENTION_OUTPUT:
        return base / math.sqrt(width_multiplier(shape)) / residual
    if role is Role.FEEDFORWARD_OUTPUT:
        return base / math.sqrt(filter_multiplier(shape)) / residual
    assert role is Role.HIDDEN
    return base / math.sqrt(width_multiplier(shape))


def learning_rate_multiplier(shape: Shape, role: Role) -> float:
    """What the schedule's rate is multiplied by."""
    if role in (Role.FEEDFORWARD_OUTPUT, Role.LORA_A_OF_FEEDFORWARD_OUTPUT):
        return 1 / filter_multiplier(shape)
    if role in (Role.HIDDEN, Role.ATTENTION_OUTPUT, Role.LORA_A):
        return 1 / width_multiplier(shape)
    return 1.0


def attention_scale(shape: Shape) -> float:
    """What q·k is multiplied by."""
    mup = shape.architecture.mup
    by_d = mup is not None and mup.attention == "1/d"
    return 1 / shape.head_dim if by_d else 1 / math.sqrt(shape.head_dim)


def embedding_multiplier(shape: Shape) -> float:
    mup = shape.architecture.mup
    return mup.embedding if mup else 1.0


def logits_multiplier(shape: Shape) -> float:
    mup = shape.architecture.mup
    return mup.logits / width_multiplier(shape) if mup else 1.0


@torch.no_grad()
def initialise(decoder: nn.Module, shape: Shape, seed: int) -> None:
    """Fills every parameter from a generator of its own, keyed (seed, name), so that their order does not matter."""
    for name, parameter in decoder.named_parameters():
        role = role_of(name)
        if role is Role.GAIN:
            parameter.fill_(1.0)
        elif role is Role.BIAS:
            parameter.zero_()
        else:
            generator = torch.Generator().manual_seed(hash64(f"winnow init 1|{seed}|{name}") >> 1)
            std = init_std(shape, role)
            values = torch.empty(parameter.shape)
            nn.init.trunc_normal_(values, std=std, a=-2 * std, b=2 * std, generator=generator)
            parameter.copy_(values)
