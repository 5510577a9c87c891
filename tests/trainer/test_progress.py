from __future__ import annotations

from pathlib import Path

from manifest.store import write_atomic
from trainer.progress import Follower


def test_a_follower_reads_each_row_once_and_waits_for_a_whole_line(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    follower = Follower(file)
    assert follower.rows() == []
    file.write_text('{"step": 0}\n{"st')
    assert follower.rows() == [{"step": 0}]
    with file.open("a") as out:
        out.write('ep": 1}\n')
    assert follower.rows() == [{"step": 1}]
    write_atomic(file, b'{"step": 0}\n')  # rewound, as run.rewind does …
    with file.open("a") as out:
        out.write('{"step": 1, "loss": 2.0}\n')  # … and grown beyond what was read before anyone looked
    assert follower.rows() == [{"step": 0}, {"step": 1, "loss": 2.0}]
