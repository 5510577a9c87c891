"""How a decoder knows where a token stands: ALiBi's bias on the scores, or RoPE's rotation of queries and keys.

Shapes: B windows, H heads, T positions, D dimensions of a head, R ≤ D rotated ones.
"""

from __future__ import annotations

import torch
from torch import Tensor


def alibi_slopes(heads: int) -> list[float]:
    """A slope per head: 2^(−8i/n), i = 1…n, for n a power of two (Press et al., 2022, section 3).

    Otherwise the slopes of the power of two below, then every second one of the power of two above, as in the authors'
    code.
    """
    power = 1 << (heads.bit_length() - 1)
    slopes = [2.0 ** (-8.0 * i / power) for i in range(1, power + 1)]
    if power == heads:
        return slopes
    return slopes + alibi_slopes(2 * power)[0::2][: heads - power]


def alibi_bias(heads: int, length: int, device: torch.device | None = None) -> Tensor:
    """(1, H, T, T): −slope · distance for keys up to the query, −∞ after it. Added to the scaled scores."""
    positions = torch.arange(length, device=device)
    distance_TT = positions[:, None] - positions[None, :]
    slopes_H = torch.tensor(alibi_slopes(heads), device=device)
    bias_HTT = -slopes_H[:, None, None] * distance_TT
    return bias_HTT.masked_fill(distance_TT < 0, float("-inf"))[None]


def rotary_tables(
    rotary_dims: int, base: float, length: int, device: torch.device | None = None
) -> tuple[Tensor, Tensor]:
    """cos and sin (T, R): dimension i and i + R/2 turn by position · base^(−2i/R) (Su et al., 2021)."""
    frequencies = base ** -(torch.arange(0, rotary_dims, 2, device=device).float() / rotary_dims)
    angles = torch.outer(torch.arange(length, device=device).float(), frequencies)
    angles_TR = torch.cat([angles, angles], dim=-1)
    return angles_TR.cos(), angles_TR.sin()


def rotate(x_BHTD: Tensor, cos_TR: Tensor, sin_TR: Tensor) -> Tensor:
    """Turns the first R dimensions of each head by its position and leaves the rest as they are."""
    dims = cos_TR.shape[-1]
    turned, rest = x_BHTD[..., :dims], x_BHTD[..., dims:]
    low, high = turned.chunk(2, dim=-1)
    turned = turned * cos_TR + torch.cat([-high, low], dim=-1) * sin_TR
    return torch.cat([turned, rest], dim=-1)


def seen(documents_BT: Tensor) -> Tensor:
    """(B, 1, T, T): the keys that a query sees: those up to it, and of its own document."""
    length = documents_BT.shape[1]
    causal_TT = torch.ones(length, length, dtype=torch.bool, device=documents_BT.device).tril()
    return (causal_TT & (documents_BT[:, :, None] == documents_BT[:, None, :]))[:, None]
