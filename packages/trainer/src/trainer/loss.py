"""Logits and targets → the loss of each window. B windows, T targets, N = B · T, V rows of the embedding."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def window_losses(logits_BTV: Tensor, targets_BT: Tensor, weights_BT: Tensor | None = None) -> Tensor:
    """(B,): the cross-entropy in nats, summed over the targets of each window, each times its weight (default 1).

    In fp32, whatever the logits are: 16 bits are too few to sum the exponentials of a vocabulary.
    """
    losses_N: Tensor = _CrossEntropy.apply(logits_BTV.flatten(0, 1), targets_BT.flatten())  # type: ignore[no-untyped-call]
    losses_BT = losses_N.view(targets_BT.shape)
    return (losses_BT if weights_BT is None else losses_BT * weights_BT).sum(dim=1)


class _CrossEntropy(torch.autograd.Function):
    """log Σ exp(logits) − the target's logit, for each of N rows.

    Its gradient, softmax − target, is made in the memory of the log-probabilities; torch's own takes two more tensors
    of N · V numbers.
    """

    @staticmethod
    def forward(ctx: Any, logits_NV: Tensor, targets_N: Tensor) -> Tensor:
        logs_NV = torch.log_softmax(logits_NV, dim=-1, dtype=torch.float32)
        losses_N = -logs_NV.gather(1, targets_N[:, None])[:, 0]
        ctx.save_for_backward(logs_NV, targets_N)
        ctx.dtype = logits_NV.dtype
        return losses_N

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_N: Tensor) -> tuple[Tensor, None]:
        logs_NV, targets_N = ctx.saved_tensors
        grad_NV = logs_NV.exp_().mul_(grad_N[:, None])
        grad_NV.scatter_add_(1, targets_N[:, None], -grad_N[:, None])
        return grad_NV.to(ctx.dtype), None
