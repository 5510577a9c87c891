"""Logits and targets → the loss of each window. B windows, T targets, V rows of the embedding."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def window_losses(logits_BTV: Tensor, targets_BT: Tensor, weights_BT: Tensor | None = None) -> Tensor:
    """(B,): the cross-entropy in nats, summed over the targets of each window, each times its weight (default 1).

    In fp32, whatever the logits are: 16 bits are too few to sum the exponentials of a vocabulary.
    """
    losses = functional.cross_entropy(logits_BTV.flatten(0, 1).float(), targets_BT.flatten(), reduction="none")
    losses_BT = losses.view(targets_BT.shape)
    return (losses_BT if weights_BT is None else losses_BT * weights_BT).sum(dim=1)
