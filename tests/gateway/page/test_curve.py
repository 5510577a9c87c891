"""The loss curve, and numbers and text as the pages write them."""

from __future__ import annotations

import pytest

from gateway.web.curve import MOST_POINTS, curve, thinned
from gateway.web.render import plain, size


def test_a_curve_lies_within_its_axes() -> None:
    rows = [{"step": i, "loss": loss} for i, loss in enumerate((5.2, 4.1, float("nan"), 3.3, 3.4))]
    drawn = curve(rows)
    assert drawn is not None
    places = [tuple(map(float, point.split(","))) for point in drawn.points.split()]
    assert [x for x, _ in places] == [0, 25, 75, 100]
    assert all(0 <= y <= 100 for _, y in places)
    assert (drawn.lowest["step"], drawn.losses[0].at, drawn.losses[-1].at) == (3, 100, 0)


@pytest.mark.parametrize("losses", [[], [1.0], [float("inf"), 2.0]])
def test_too_little_makes_no_curve(losses: list[float]) -> None:
    assert curve([{"step": i, "loss": loss} for i, loss in enumerate(losses)]) is None


def test_a_flat_curve_has_an_axis_too() -> None:
    drawn = curve([{"step": i, "loss": 2.0} for i in range(3)])
    assert drawn is not None
    assert len(drawn.losses) >= 2


def test_thinning_keeps_both_ends() -> None:
    rows = [{"step": i} for i in range(12_345)]
    kept = thinned(rows)
    assert (len(kept), kept[0]["step"], kept[-1]["step"]) == (MOST_POINTS, 0, 12_344)


def test_numbers_and_text_as_people_read_them() -> None:
    assert [size(n) for n in (0, 99_999, 123_456, 4_300_000, 2.5e12)] == ["0", "99,999", "123 k", "4.3 M", "2.5 T"]
    assert plain("\x1b[1;31mred\x1b[0m\ttab\x00\u202e") == "red\ttab"
