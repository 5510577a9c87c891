"""What a family of Hugging Face models is, and what several of them have in common."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from trainer.huggingface.names import Names
from trainer.huggingface.settings import Settings
from trainer.model.shape import Architecture, Shape

QUERY_KEY_VALUE = ("attention.query", "attention.key", "attention.value")


@dataclass(frozen=True)
class Family:
    """A class of models. kinds: the `model_type`s that it reads; the first is what it writes.

    config: of a shape, whose multipliers are folded unless `multiplies`. shape: of a config.json.
    """

    kinds: tuple[str, ...]
    architecture: str
    names: Names
    expresses: Callable[[Shape], bool]
    config: Callable[[Shape], dict[str, Any]]
    shape: Callable[[Settings], Shape]
    multiplies: bool = False


def whole_heads(shape: Shape) -> bool:
    return shape.heads * shape.head_dim == shape.width


def has(shape: Shape, **wanted: object) -> bool:
    return all(getattr(shape.architecture, key) == value for key, value in wanted.items())


def rotates_all(shape: Shape) -> bool:
    return shape.rotary_dims == shape.head_dim


def common(shape: Shape) -> dict[str, Any]:
    """What most config.json's have in common."""
    return {
        "vocab_size": shape.vocab_size,
        "hidden_size": shape.width,
        "intermediate_size": shape.filter,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "tie_word_embeddings": shape.architecture.tied,
    }


def grouped(shape: Shape) -> dict[str, Any]:
    return common(shape) | {"num_key_value_heads": shape.kv_heads}


def rope_config(shape: Shape) -> dict[str, Any]:
    """As transformers 4 writes it, which 5 reads too."""
    return {"rope_theta": shape.architecture.rotary_base}


def rotary_share(rotated: int, head_dim: int) -> float:
    """The rotated part of a head; times head_dim it is not below the whole number that it stands for."""
    share = rotated / head_dim
    return share if int(head_dim * share) == rotated else math.nextafter(share, 1.0)


def rotated_part(shape: Shape) -> float:
    """`partial_rotary_factor` of a shape."""
    return rotary_share(shape.rotary_dims, shape.head_dim)


def shape_of(settings: Settings, architecture: dict[str, Any]) -> Shape:
    """A shape, of the names that most config.json's have."""
    width, heads = settings.integer("hidden_size"), settings.integer("num_attention_heads")
    return Shape(
        layers=settings.integer("num_hidden_layers"),
        width=width,
        heads=heads,
        kv_heads=settings.integer("num_key_value_heads", heads),
        head_dim=settings.integer("head_dim", max(1, width // heads)),
        filter=settings.integer("intermediate_size"),
        vocab_size=settings.integer("vocab_size"),
        architecture=Architecture(**architecture),
    )
