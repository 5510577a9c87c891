"""Attention as torch's flex attention computes it: ALiBi and documents in the kernel, no bias of H × T × T in memory.

For CUDA. On a CPU it has no backward pass (torch 2.13) and its forward pass is no faster than the other way's.

Shapes: B windows, H heads, K key-value heads, T positions, D dimensions of a head.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from trainer.model.positions import alibi_slopes


@dataclass(frozen=True)
class Kernel:
    """What is added to a score, and which blocks of scores there are."""

    score: Callable[..., Tensor] | None
    mask: BlockMask


def kernel(
    length: int, device: torch.device, *, heads: int = 0, scale: float = 1.0, documents_BT: Tensor | None = None
) -> Kernel:
    """The kernel of a forward pass. heads: those that ALiBi has slopes for, 0 without it; divided by `scale`."""

    def visible(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        before = q >= k
        return before if documents_BT is None else before & (documents_BT[b, q] == documents_BT[b, k])

    rows = None if documents_BT is None else documents_BT.shape[0]
    mask = create_block_mask(visible, rows, None, length, length, device=device)
    if not heads:
        return Kernel(None, mask)
    slopes_H = torch.tensor(alibi_slopes(heads), device=device) / scale

    def with_distance(score: Tensor, b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return score - slopes_H[h] * (q - k)

    return Kernel(with_distance, mask)


def attend(q_BHTD: Tensor, k_BKTD: Tensor, v_BKTD: Tensor, made: Kernel, scale: float) -> Tensor:
    """(B, H, T, D)."""
    function = _compiled() if q_BHTD.is_cuda else flex_attention
    out_BHTD: Tensor = function(
        q_BHTD,
        k_BKTD,
        v_BKTD,
        score_mod=made.score,
        block_mask=made.mask,
        scale=scale,
        enable_gqa=q_BHTD.shape[1] != k_BKTD.shape[1],
    )
    return out_BHTD


@functools.cache
def _compiled() -> Any:
    return torch.compile(flex_attention, dynamic=False)
