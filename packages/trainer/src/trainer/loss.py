"""Logits and targets → the loss of each window. B windows, T targets, N = B · T, V rows of the embedding."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

CPU_BLOCK, GPU_BLOCK = 1 << 18, 1 << 27
"""Logits whose exponentials are held at once: what a core's own cache takes, and half a gigabyte."""


def window_losses(logits_BTV: Tensor, targets_BT: Tensor, weights_BT: Tensor | None = None) -> Tensor:
    """(B,): the cross-entropy in nats, summed over the targets of each window, each times its weight (default 1).

    In fp32, whatever the logits are: 16 bits are too few to sum the exponentials of a vocabulary.
    """
    weights_N = torch.ones_like(targets_BT, dtype=torch.float32) if weights_BT is None else weights_BT.float()
    losses_N: Tensor = _CrossEntropy.apply(  # type: ignore[no-untyped-call]
        logits_BTV.flatten(0, 1), targets_BT.flatten(), weights_N.flatten()
    )
    return losses_N.view(targets_BT.shape).sum(dim=1)


class _CrossEntropy(torch.autograd.Function):
    """weight · (log Σ exp(logits) − the target's logit), for each of N rows.

    The gradient, weight · (softmax − target), is made along with the loss, a block of rows after the other, while their
    exponentials are in the cache. Whoever sums the losses has it as it is. So logits are read once and their gradient
    is written once, in the precision of the logits, where torch's own keeps the log-probabilities in fp32 in between
    and makes two more tensors of N · V numbers of them.
    """

    @staticmethod
    def forward(ctx: Any, logits_NV: Tensor, targets_N: Tensor, weights_N: Tensor) -> Tensor:
        losses_N = torch.empty_like(weights_N)
        learns = ctx.needs_input_grad[0]
        grad_NV = torch.empty_like(logits_NV) if learns else None
        size = max(1, (CPU_BLOCK if logits_NV.device.type == "cpu" else GPU_BLOCK) // logits_NV.shape[1])
        for first in range(0, len(logits_NV), size):
            rows = slice(first, first + size)
            targets_R1, weights_R1 = targets_N[rows, None], weights_N[rows, None]
            logs_RV = torch.log_softmax(logits_NV[rows], dim=-1, dtype=torch.float32)
            losses_N[rows] = -(logs_RV.gather(1, targets_R1) * weights_R1)[:, 0]
            if grad_NV is not None:
                probabilities_RV = logs_RV.exp_()
                probabilities_RV.scatter_add_(1, targets_R1, torch.full_like(weights_R1, -1.0))
                torch.mul(probabilities_RV, weights_R1, out=grad_NV[rows])
        ctx.save_for_backward(grad_NV)
        return losses_N

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_N: Tensor) -> tuple[Tensor, None, None]:
        (grad_NV,) = ctx.saved_tensors
        is_sum = grad_N.device.type == "cpu" and bool((grad_N == 1).all())  # a GPU multiplies sooner than it answers
        return grad_NV if is_sum else grad_NV * grad_N[:, None].to(grad_NV.dtype), None, None
