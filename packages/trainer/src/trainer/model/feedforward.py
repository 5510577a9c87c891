"""The feed-forward block: SwiGLU (Shazeer, 2020) or GELU. Widths: C of the model, F of the filter."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from trainer.model.shape import Shape


class SwiGLU(nn.Module):
    """down(silu(gate(x)) · up(x))."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        bias = shape.architecture.bias
        self.gate = nn.Linear(shape.width, shape.filter, bias=bias)
        self.up = nn.Linear(shape.width, shape.filter, bias=bias)
        self.down = nn.Linear(shape.filter, shape.width, bias=bias)

    def forward(self, x_BTC: Tensor) -> Tensor:
        out_BTC: Tensor = self.down(functional.silu(self.gate(x_BTC)) * self.up(x_BTC))
        return out_BTC


class Gelu(nn.Module):
    """down(gelu(up(x)))."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        bias = shape.architecture.bias
        self.up = nn.Linear(shape.width, shape.filter, bias=bias)
        self.down = nn.Linear(shape.filter, shape.width, bias=bias)

    def forward(self, x_BTC: Tensor) -> Tensor:
        out_BTC: Tensor = self.down(functional.gelu(self.up(x_BTC)))
        return out_BTC


def feedforward(shape: Shape) -> nn.Module:
    """The block that the architecture names."""
    return SwiGLU(shape) if shape.architecture.feedforward == "swiglu" else Gelu(shape)
