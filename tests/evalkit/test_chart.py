from __future__ import annotations

import math

from hypothesis import assume, given
from hypothesis import strategies as st

from evalkit.chart import chart, scale
from manifest.report import Score

numbers = st.floats(0.01, 1000)


def score(low: float, value: float, high: float) -> Score:
    return Score(
        task="t", source="s", metric="m", value=value, low=low, high=high, confidence=0.95, count=9,
        unit="documents", higher_is_better=False,
    )  # fmt: skip


@given(numbers, numbers)
def test_a_scale_covers_its_values_with_a_few_round_ticks(a: float, b: float) -> None:
    low, high = min(a, b), max(a, b)
    first, step, count = scale(low, high)
    slack = 1e-6 * step + 1e-9 * high
    assert first <= low + slack
    assert first + step * (count - 1) >= high - slack
    assert 2 <= count <= 7
    assert math.isclose(step / 10 ** math.floor(math.log10(step) + 1e-9) % 1, 0, abs_tol=1e-6)


@given(st.lists(numbers, min_size=4, max_size=4))
def test_marks_lie_within_the_picture_and_in_the_order_of_their_values(values: list[float]) -> None:
    low, value, high, compared = *sorted(values[:3]), values[3]
    assume(high - low > 1e-3)
    (mark,) = chart([score(low, value, high)], [compared]).marks
    assert mark.compared_at is not None
    assert min(mark.low, mark.compared_at) >= 0
    assert mark.low <= mark.at <= mark.high
    assert max(mark.high, mark.compared_at) <= 100
    left, right = (mark.compared_at, mark.at) if compared < value else (mark.at, mark.compared_at)
    assert left <= right
