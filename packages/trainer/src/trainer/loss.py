"""Logits and targets → the loss of each window. B windows, T targets, V rows of the embedding."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def window_losses(logits_BTV: Tensor, targets_BT: Tensor) -> Tensor:
    """(B,): the cross-entropy in nats, summed over the targets of each window."""
    losses = functional.cross_entropy(logits_BTV.flatten(0, 1), targets_BT.flatten(), reduction="none")
    return losses.view(targets_BT.shape).sum(dim=1)
