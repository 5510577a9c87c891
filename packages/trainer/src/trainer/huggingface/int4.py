"""Weights of 4 bits: a code per weight, a scale per group of inputs of an output, rounded to the nearest.

    weight ≈ (code − 8) · scale          code 0 … 15, scale in bfloat16          4 + 16 / group bits per weight

The scale of a group is the one of some candidates below its largest weight / 7 with the least squared error: a few
clipped weights cost less than coarse steps for all others. Shapes: O outputs, I inputs, G groups of N inputs.
"""

from __future__ import annotations

import torch
from torch import Tensor

from manifest.errors import InputError
from trainer.model.shape import Shape

GROUPS = (64, 32, 16, 8)
"""Sizes of a group, the first that divides the inputs of every matrix but the feed-forward's output."""
CANDIDATES = torch.linspace(1.0, 0.6, 9)
ROWS = 4096
"""Outputs that are quantised at once."""


def group_size(shape: Shape) -> int:
    """Inputs per scale. Raises InputError if the decoder's widths have no power of two in common."""
    for size in GROUPS:
        if shape.width % size == 0 and shape.heads * shape.head_dim % size == 0:
            return size
    raise InputError(
        f"--bits 4: a width of {shape.width} and {shape.heads} heads of {shape.head_dim} cannot be cut into groups of "
        f"{GROUPS[-1]}; export without --bits"
    )


def padded_filter(shape: Shape) -> int:
    """The filter, rounded up to whole groups. What is added is zero and changes no logit."""
    size = group_size(shape)
    return -(-shape.filter // size) * size


def padded(shape: Shape, name: str, value: Tensor) -> Tensor:
    """A parameter of a feed-forward block, with zeros where the filter grows; others as they are."""
    more = padded_filter(shape) - shape.filter
    if more == 0 or ".feedforward." not in name:
        return value
    if name.endswith("down.weight"):
        return torch.nn.functional.pad(value, (0, more))
    if name.endswith("down.bias"):
        return value
    return torch.cat([value, value.new_zeros(more, *value.shape[1:])])


def pack(weight_OI: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Two codes per byte (O, I / 2) uint8, the even input's in the low half, and scales (O, I / size) bfloat16."""
    made = [_pack(rows, size) for rows in torch.split(weight_OI.float(), ROWS)]
    return torch.cat([codes for codes, _ in made]), torch.cat([scales for _, scales in made])


def _pack(weight_OI: Tensor, size: int) -> tuple[Tensor, Tensor]:
    grouped_OGN = weight_OI.reshape(len(weight_OI), -1, size)
    largest_OG = grouped_OGN.abs().amax(dim=-1)
    best_OG = torch.full_like(largest_OG, torch.inf)
    scale_OG = torch.ones_like(largest_OG)
    for candidate in CANDIDATES:
        # What is stored is what the codes are made with.
        tried_OG = (largest_OG / 7 * candidate).bfloat16().float()
        tried_OG = torch.where(tried_OG == 0, 1.0, tried_OG)
        error_OG = (_codes(grouped_OGN, tried_OG) * tried_OG[..., None] - grouped_OGN).square().sum(dim=-1)
        scale_OG = torch.where(error_OG < best_OG, tried_OG, scale_OG)
        best_OG = torch.minimum(error_OG, best_OG)
    codes_OI = (_codes(grouped_OGN, scale_OG) + 8).to(torch.uint8).flatten(1)
    return codes_OI[:, 0::2] | codes_OI[:, 1::2] << 4, scale_OG.bfloat16()


def _codes(grouped_OGN: Tensor, scale_OG: Tensor) -> Tensor:
    return (grouped_OGN / scale_OG[..., None]).round().clamp(-8, 7)


def unpack(packed: Tensor, scale_OG: Tensor) -> Tensor:
    """(O, I): the weights that codes stand for, fp32."""
    codes_OI = torch.stack([packed & 15, packed >> 4], dim=-1).flatten(1).float() - 8
    grouped_OGN = codes_OI.view(*scale_OG.shape, -1)
    weight_OI: Tensor = (grouped_OGN * scale_OG.float()[..., None]).flatten(1)
    return weight_OI
