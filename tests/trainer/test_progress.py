from __future__ import annotations

from pathlib import Path

import pytest

from trainer.progress import Follower, span


def test_a_follower_reads_each_row_once_and_waits_for_a_whole_line(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    follower = Follower(file)
    assert follower.rows() == []
    file.write_text('{"step": 0}\n{"st')
    assert follower.rows() == [{"step": 0}]
    with file.open("a") as out:
        out.write('ep": 1}\n')
    assert follower.rows() == [{"step": 1}]
    file.write_text('{"step": 0}\n')  # rewound: shorter than what was read
    assert follower.rows() == [{"step": 0}]


@pytest.mark.parametrize(("seconds", "said"), [(0, "0 s"), (119, "119 s"), (600, "10 min"), (9000, "2.5 h")])
def test_a_time_is_said_in_the_unit_that_fits(seconds: float, said: str) -> None:
    assert span(seconds) == said
