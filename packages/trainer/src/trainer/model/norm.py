"""LayerNorm or RMSNorm. A LayerNorm keeps its bias also in a model whose matrices have none. C is the width."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from trainer.model.shape import Shape


def norm(shape: Shape) -> nn.Module:
    """A norm over the width of the model."""
    kind = nn.LayerNorm if shape.architecture.norm == "layernorm" else RMSNorm
    return kind(shape.width, eps=shape.architecture.norm_eps)


class RMSNorm(nn.RMSNorm):
    """x / √(mean x² + eps) · weight. On a GPU torch has one kernel for it; on a CPU it has not, and this is quicker."""

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu" or x.dtype != torch.float32:
            return super().forward(x)
        out: Tensor = _RootMeanSquare.apply(x, self.weight, self.eps)  # type: ignore[no-untyped-call]
        return out


class _RootMeanSquare(torch.autograd.Function):
    """With r = 1 / √(mean x² + eps), n = x r and y = n w:  ∂x = r (∂y w − n mean(∂y w n)),  ∂w = Σ ∂y n."""

    @staticmethod
    def forward(ctx: Any, x_NC: Tensor, weight_C: Tensor, eps: float) -> Tensor:
        r_N1 = torch.linalg.vector_norm(x_NC, dim=-1, keepdim=True).square_().div_(x_NC.shape[-1]).add_(eps).rsqrt_()
        normal_NC = x_NC * r_N1
        ctx.save_for_backward(normal_NC, r_N1, weight_C)
        out_NC: Tensor = normal_NC * weight_C
        return out_NC

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_NC: Tensor) -> tuple[Tensor, Tensor, None]:
        normal_NC, r_N1, weight_C = ctx.saved_tensors
        products_NC = grad_NC * normal_NC
        mean_N1 = (products_NC @ weight_C)[..., None] / weight_C.numel()
        by_weight_C = products_NC.flatten(0, -2).sum(dim=0)
        by_x_NC = (grad_NC * weight_C).addcmul_(normal_NC, mean_N1, value=-1).mul_(r_N1)
        return by_x_NC, by_weight_C, None
