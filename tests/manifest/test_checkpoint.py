from __future__ import annotations

import pytest
from pydantic import ValidationError

from manifest.checkpoint import Pace, Timeline
from manifest.order import OrderRecord, append


def two_segments() -> OrderRecord:
    record = OrderRecord(seed=0, block_tokens=8)
    for phase in ("short", "long"):
        record = append(record, mixture="m", phase=phase, draws={"a": 3}, streams={"a": ("s", 4)})
    return record


def test_a_segments_last_step_takes_what_is_left() -> None:
    paces = (
        Pace(seq_len=4, windows_per_step=4, first_step=0),
        Pace(seq_len=8, windows_per_step=2, first_step=2),
    )
    timeline = Timeline(order=two_segments(), paces=paces)
    sizes = [timeline.step(step).stop - timeline.step(step).first for step in range(timeline.total_steps)]
    assert sizes == [4, 2, 2, 1]


@pytest.mark.parametrize(
    ("paces", "message"),
    [
        ((Pace(seq_len=4, windows_per_step=4, first_step=0),), "2 segments, but 1 paces"),
        (
            (Pace(seq_len=3, windows_per_step=4, first_step=0), Pace(seq_len=8, windows_per_step=2, first_step=2)),
            "seq_len 3 does not divide blocks of 8",
        ),
        (
            (Pace(seq_len=4, windows_per_step=4, first_step=0), Pace(seq_len=8, windows_per_step=2, first_step=3)),
            "segment 1 begins at step 3, not 2",
        ),
    ],
)
def test_paces_that_do_not_fit_the_order_are_refused(paces: tuple[Pace, ...], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Timeline(order=two_segments(), paces=paces)
