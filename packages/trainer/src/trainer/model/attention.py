"""Causal self-attention with grouped keys and values, and where positions enter it.

Shapes: B windows, T positions, C width, H heads, K key-value heads, D dimensions of a head.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor, nn
from torch.nn import functional

from trainer.model import mup
from trainer.model.positions import rotate
from trainer.model.shape import Shape


@dataclass(frozen=True)
class Positions:
    """What a forward pass computes once for all layers: ALiBi's bias (1, H, T, T), or RoPE's tables (T, R).

    Where documents of a window do not see each other: a bias per window (B, H, T, T), or RoPE's tables and what each
    query sees (B, 1, T, T). Both tell distances only, so positions need not start anew with each document.
    """

    bias: Tensor | None = None
    rotary: tuple[Tensor, Tensor] | None = None
    seen: Tensor | None = None

    def within(self, seen_B1TT: Tensor) -> Positions:
        """The same, for queries that see only these keys."""
        if self.bias is None:
            return replace(self, seen=seen_B1TT)
        return replace(self, bias=self.bias.masked_fill(~seen_B1TT, float("-inf")))


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

    def forward(self, x_BTC: Tensor, positions: Positions) -> Tensor:
        q_BHTD = self._heads(self.query(x_BTC))
        k_BKTD, v_BKTD = self._heads(self.key(x_BTC)), self._heads(self.value(x_BTC))
        if positions.rotary is not None:
            q_BHTD, k_BKTD = rotate(q_BHTD, *positions.rotary), rotate(k_BKTD, *positions.rotary)
        if self.group > 1:
            k_BKTD, v_BKTD = (x.repeat_interleave(self.group, dim=1) for x in (k_BKTD, v_BKTD))
        mask = positions.seen if positions.bias is None else positions.bias
        mixed_BHTD = functional.scaled_dot_product_attention(
            q_BHTD,
            k_BKTD,
            v_BKTD,
            attn_mask=mask,
            is_causal=mask is None,
            scale=self.scale,
        )
        out_BTC: Tensor = self.output(mixed_BHTD.transpose(1, 2).flatten(2))
        return out_BTC

    def _heads(self, x_BTE: Tensor) -> Tensor:
        return x_BTE.view(*x_BTE.shape[:2], -1, self.head_dim).transpose(1, 2)
