"""How a decoder knows where a token stands: ALiBi's bias on the scores, or RoPE's rotation of queries and keys.

Shapes: B windows, H heads, Q queries (the last of T positions, all of them unless there is a cache), D dimensions of a
head, R ≤ D rotated ones.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


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


def alibi_bias(
    heads: int, length: int, device: torch.device | None = None, *, first: int = 0, scale: float = 1.0
) -> Tensor:
    """(1, H, Q, T): −slope / scale · distance for keys up to the query, −∞ after it. Added to the scaled scores.

    first: the position of the first query. scale: of position interpolation.
    """
    positions = torch.arange(length, device=device)
    distance_QT = positions[first:, None] - positions[None, :]
    slopes_H = torch.tensor(alibi_slopes(heads), device=device) / scale
    bias_HQT = -slopes_H[:, None, None] * distance_QT
    return bias_HQT.masked_fill(distance_QT < 0, float("-inf"))[None]


def rotary_tables(
    rotary_dims: int, base: float, length: int, device: torch.device | None = None, *, first: int = 0
) -> tuple[Tensor, Tensor]:
    """cos and sin (Q, R): dimension i and i + R/2 turn by position · base^(−2i/R) (Su et al., 2021)."""
    frequencies = base ** -(torch.arange(0, rotary_dims, 2, device=device).float() / rotary_dims)
    angles = torch.outer(torch.arange(first, length, device=device).float(), frequencies)
    angles_QR = torch.cat([angles, angles], dim=-1)
    return angles_QR.cos(), angles_QR.sin()


def rotate(x_BHQD: Tensor, cos_QR: Tensor, sin_QR: Tensor) -> Tensor:
    """Turns the first R dimensions of each head by its position, in fp32, and leaves the rest as they are."""
    turned: Tensor = _Rotation.apply(x_BHQD, cos_QR, sin_QR)  # type: ignore[no-untyped-call]
    return turned


class _Rotation(torch.autograd.Function):
    """A rotation, whose gradient is turned back. Autograd's own way through slices fills and adds whole tensors."""

    @staticmethod
    def forward(ctx: Any, x_BHQD: Tensor, cos_QR: Tensor, sin_QR: Tensor) -> Tensor:
        ctx.save_for_backward(cos_QR, sin_QR)
        return _turned(x_BHQD, cos_QR, sin_QR)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BHQD: Tensor) -> tuple[Tensor, None, None]:
        cos_QR, sin_QR = ctx.saved_tensors
        return _turned(grad_BHQD, cos_QR, -sin_QR), None, None


def _turned(x_BHQD: Tensor, cos_QR: Tensor, sin_QR: Tensor) -> Tensor:
    half = cos_QR.shape[-1] // 2
    cos_Qr, sin_Qr = cos_QR[..., :half], sin_QR[..., :half]  # both halves turn by the same angles
    low, high = x_BHQD[..., :half], x_BHQD[..., half : 2 * half]
    out_BHQD = torch.empty_like(x_BHQD)
    out_BHQD[..., :half] = (low * cos_Qr).addcmul_(high, sin_Qr, value=-1)
    out_BHQD[..., half : 2 * half] = (high * cos_Qr).addcmul_(low, sin_Qr)
    out_BHQD[..., 2 * half :] = x_BHQD[..., 2 * half :]
    return out_BHQD


def causal(length: int, device: torch.device | None = None, *, first: int = 0) -> Tensor:
    """(Q, T): the keys up to each query."""
    positions = torch.arange(length, device=device)
    return positions[first:, None] >= positions[None, :]


def seen(documents_BT: Tensor) -> Tensor:
    """(B, 1, T, T): the keys that a query sees: those up to it, and of its own document."""
    causal_TT = causal(documents_BT.shape[1], documents_BT.device)
    return (causal_TT & (documents_BT[:, :, None] == documents_BT[:, None, :]))[:, None]


def places_within(documents_BT: Tensor) -> Tensor:
    """(B, T): the place of each token in its document, from 0."""
    places_T = torch.arange(documents_BT.shape[1], device=documents_BT.device)
    begins_BT = torch.ones_like(documents_BT, dtype=torch.bool)
    begins_BT[:, 1:] = documents_BT[:, 1:] != documents_BT[:, :-1]
    return places_T - torch.where(begins_BT, places_T, 0).cummax(dim=1).values


def seen_from(starts_B: Tensor, length: int, *, first: int = 0) -> Tensor:
    """(B, 1, Q, T): the keys up to a query, from where its row starts. A query before that sees itself alone.

    (A query that saw nothing would be no number, and through its values those after it.)
    """
    keys_T = torch.arange(length, device=starts_B.device)
    itself_QT = keys_T[first:, None] == keys_T[None, :]
    begun_B1T = (keys_T[None, :] >= starts_B[:, None])[:, None]
    return (causal(length, starts_B.device, first=first) & begun_B1T | itself_QT)[:, None]
