"""LayerNorm or RMSNorm. A LayerNorm keeps its bias also in a model whose matrices have none."""

from __future__ import annotations

from torch import nn

from trainer.model.shape import Shape


def norm(shape: Shape) -> nn.Module:
    """A norm over the width of the model."""
    kind = nn.LayerNorm if shape.architecture.norm == "layernorm" else nn.RMSNorm
    return kind(shape.width, eps=shape.architecture.norm_eps)
