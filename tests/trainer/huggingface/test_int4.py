"""Four bits: the oracle is a search over codes and scales, group by group."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.trainer.huggingface.models import converted, random_decoder, tensors
from tests.trainer.model.test_decoder import shape

from manifest.errors import InputError
from trainer.huggingface import int4


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 5), groups=st.integers(1, 3), seed=st.integers(0, 1000), scale=st.sampled_from([1e-4, 1, 50])
)
def test_a_group_is_no_worse_than_any_scale_that_is_tried(rows: int, groups: int, seed: int, scale: float) -> None:
    weight = torch.randn(rows, 8 * groups, generator=torch.Generator().manual_seed(seed)) * scale
    packed, scales = int4.pack(weight, 8)
    assert packed.shape == (rows, 4 * groups)
    assert scales.shape == (rows, groups)
    found = int4.unpack(packed, scales)
    for row in range(rows):
        for group in range(groups):
            piece = weight[row, 8 * group : 8 * group + 8]
            error = float((found[row, 8 * group : 8 * group + 8] - piece).square().sum())
            assert error <= best(piece) * (1 + 1e-4) + 1e-12


def best(piece: torch.Tensor) -> float:
    """The least squared error over the scales, with the nearest of 16 codes for each weight."""
    errors = []
    for candidate in int4.CANDIDATES:
        scale = float((piece.abs().max() / 7 * candidate).bfloat16())
        levels = torch.arange(-8, 8) * scale
        errors.append(float((piece[:, None] - levels).square().min(dim=1).values.sum()))
    return min(errors)


def test_codes_that_are_stored_are_the_weights_bit_for_bit() -> None:
    scales = torch.tensor([[0.5, 0.25], [1.0, 2.0]])
    codes = torch.arange(-8, 8).repeat(2, 1).float()
    codes[:, 0], codes[:, 8] = -7, 7  # a whole range on both sides
    weight = (codes.view(2, 2, 8) * scales[..., None]).flatten(1)
    assert torch.equal(int4.unpack(*int4.pack(weight, 8)), weight)
    assert torch.equal(int4.unpack(*int4.pack(torch.zeros(3, 16), 8)), torch.zeros(3, 16))


def test_a_filter_is_filled_up_with_zeros_that_change_nothing() -> None:
    decoder = random_decoder(shape(filter=44, mup=None))
    made = converted(decoder, bits=4)
    assert made.converted.filter == 64
    found = tensors(decoder, made)
    up = int4.unpack(*(found[f"transformer.h.0.mlp.c_fc.weight_{part}"] for part in ("packed", "scale")))
    assert not up[44:].any()
    assert not found["transformer.h.0.mlp.c_fc.bias"][44:].any()
    down = int4.unpack(*(found[f"transformer.h.0.mlp.c_proj.weight_{part}"] for part in ("packed", "scale")))
    assert not down[:, 44:].any()


def test_widths_without_a_group_are_refused() -> None:
    decoder = random_decoder(shape(width=36, head_dim=9))
    with pytest.raises(InputError, match="a width of 36 and 4 heads of 9 cannot be cut into groups of 8"):
        converted(decoder, bits=4)
