from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainer.model.positions import alibi_bias, alibi_slopes, rotary_tables, rotate


@pytest.mark.parametrize("heads", [1, 2, 8, 32])
def test_slopes_of_a_power_of_two_are_geometric(heads: int) -> None:
    assert alibi_slopes(heads) == [2 ** (-8 * i / heads) for i in range(1, heads + 1)]


def test_twelve_heads_take_the_slopes_of_eight_and_every_second_of_sixteen() -> None:
    eight = [2.0**-i for i in range(1, 9)]
    every_second_of_sixteen = [2 ** (-i / 2) for i in (1, 3, 5, 7)]
    assert alibi_slopes(12) == pytest.approx(eight + every_second_of_sixteen)


@given(heads=st.integers(1, 40), length=st.integers(1, 12), data=st.data())
def test_the_bias_is_minus_slope_times_distance_and_hides_the_future(
    heads: int, length: int, data: st.DataObject
) -> None:
    head = data.draw(st.integers(0, heads - 1))
    query, key = data.draw(st.integers(0, length - 1)), data.draw(st.integers(0, length - 1))
    found = float(alibi_bias(heads, length)[0, head, query, key])
    if key > query:
        assert found == -math.inf
    else:
        assert found == pytest.approx(-alibi_slopes(heads)[head] * (query - key))


def test_partial_rotation_leaves_the_other_dimensions_alone() -> None:
    x_BHTD = torch.randn(2, 3, 7, 16)
    turned = rotate(x_BHTD, *rotary_tables(4, 10000.0, 7))
    assert torch.equal(turned[..., 4:], x_BHTD[..., 4:])
    assert not torch.allclose(turned[:, :, 1:, :4], x_BHTD[:, :, 1:, :4])


def test_rotated_scores_depend_on_the_distance_only() -> None:
    q, k = torch.randn(8), torch.randn(8)
    tables = rotary_tables(8, 10000.0, 30)
    q_BHTD, k_BHTD = (rotate(x.expand(1, 1, 30, 8), *tables) for x in (q, k))
    scores_TT = (q_BHTD @ k_BHTD.transpose(-1, -2))[0, 0]
    for distance in (0, 1, 5):
        along = torch.diagonal(scores_TT, -distance)
        torch.testing.assert_close(along, along[:1].expand_as(along), atol=1e-5, rtol=1e-5)
