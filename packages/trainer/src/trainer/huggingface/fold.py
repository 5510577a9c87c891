"""muP's multipliers, folded into the weights: the same logits from a model that has none.

e: the embedding's multiplier, l: the logits', s: what scores are multiplied by, over the usual 1/√head_dim.

    embedding (and learned positions)  × e
    query                              × s
    final norm                         × l, or × l/e where the embedding is also the unembedding, so it stays tied
"""

from __future__ import annotations

import math

from torch import Tensor

from trainer.model import mup
from trainer.model.shape import Shape


def without_mup(shape: Shape) -> Shape:
    """The shape that folded weights have."""
    return shape.model_copy(update={"architecture": shape.architecture.model_copy(update={"mup": None})})


def factor(shape: Shape, name: str) -> float:
    """What a parameter is multiplied by. 1 without muP."""
    module = name.rsplit(".", 1)[0]
    embedding = mup.embedding_multiplier(shape)
    if module in ("embedding", "position_embedding"):
        return embedding
    if module == "final_norm":
        return mup.logits_multiplier(shape) / (embedding if shape.architecture.tied else 1.0)
    if module.endswith("attention.query"):
        return mup.attention_scale(shape) * math.sqrt(shape.head_dim)
    return 1.0


def folded(shape: Shape, name: str, value: Tensor) -> Tensor:
    """A parameter with its factor in it; the parameter itself where that is 1."""
    by = factor(shape, name)
    return value if math.isclose(by, 1.0, rel_tol=1e-12) else value * by
