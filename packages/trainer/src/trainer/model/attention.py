"""Causal self-attention with grouped keys and values, and where positions enter it.

Shapes: B windows, C width, H heads, K key-value heads, D dimensions of a head; Q positions that are computed and T that
are seen, the same without a cache.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor, nn
from torch.nn import functional

from trainer.model import flex, mup
from trainer.model.cache import LayerCache
from trainer.model.positions import rotate
from trainer.model.shape import Shape


@dataclass(frozen=True)
class Positions:
    """What a forward pass computes once for all layers.

    first: the position of the first query; those before it are in a cache. bias: ALiBi's (1, H, Q, T), or one per
    window (B, H, Q, T) where documents of a window do not see each other. rotary: RoPE's tables (Q, R). seen: the keys
    of each query (B, 1, Q, T), where there is no bias to say it. Without bias and seen, a query sees all keys up to it.
    kernel: all of this for flex attention. Bias and tables tell distances only, so they need not start anew with each
    document.
    """

    first: int = 0
    bias: Tensor | None = None
    rotary: tuple[Tensor, Tensor] | None = None
    seen: Tensor | None = None
    kernel: flex.Kernel | None = None

    def within(self, seen_B1QT: Tensor) -> Positions:
        """The same, for queries that see only these keys."""
        if self.bias is None:
            return replace(self, seen=seen_B1QT)
        return replace(self, bias=self.bias.masked_fill(~seen_B1QT, float("-inf")))


class Attention(nn.Module):
    """softmax(scale · q·k + bias) v, over the keys up to each query."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        bias = shape.architecture.bias
        self.head_dim = shape.head_dim
        self.group = shape.heads // shape.kv_heads
        self.scale = mup.attention_scale(shape)
        self.query = nn.Linear(shape.width, shape.heads * shape.head_dim, bias=bias)
        self.key = nn.Linear(shape.width, shape.kv_heads * shape.head_dim, bias=bias)
        self.value = nn.Linear(shape.width, shape.kv_heads * shape.head_dim, bias=bias)
        self.output = nn.Linear(shape.heads * shape.head_dim, shape.width, bias=bias)

    def forward(self, x_BQC: Tensor, positions: Positions, cache: LayerCache | None = None) -> Tensor:
        q_BHQD = self._heads(self.query(x_BQC))
        k_BKTD, v_BKTD = self._heads(self.key(x_BQC)), self._heads(self.value(x_BQC))
        if positions.rotary is not None:
            q_BHQD, k_BKTD = rotate(q_BHQD, *positions.rotary), rotate(k_BKTD, *positions.rotary)
        if cache is not None:
            k_BKTD, v_BKTD = cache.extend(k_BKTD, v_BKTD, positions.first)
        out_BQC: Tensor = self.output(self._mix(q_BHQD, k_BKTD, v_BKTD, positions).transpose(1, 2).flatten(2))
        return out_BQC

    def _mix(self, q_BHQD: Tensor, k_BKTD: Tensor, v_BKTD: Tensor, positions: Positions) -> Tensor:
        if positions.kernel is not None:
            return flex.attend(q_BHQD, k_BKTD, v_BKTD, positions.kernel, self.scale)
        if self.group > 1:
            k_BKTD, v_BKTD = (x.repeat_interleave(self.group, dim=1) for x in (k_BKTD, v_BKTD))
        mask = positions.seen if positions.bias is None else positions.bias.to(q_BHQD.dtype)
        return functional.scaled_dot_product_attention(
            q_BHQD,
            k_BKTD,
            v_BKTD,
            attn_mask=mask,
            is_causal=mask is None and positions.first == 0,  # later, a single query sees all
            scale=self.scale,
        )

    def _heads(self, x_BTE: Tensor) -> Tensor:
        return x_BTE.view(*x_BTE.shape[:2], -1, self.head_dim).transpose(1, 2)
