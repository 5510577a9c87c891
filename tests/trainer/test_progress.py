from __future__ import annotations

from pathlib import Path

from manifest.store import write_atomic
from trainer.progress import Follower, Rate
from trainer.run import rewind
from trainer.tensorboard import EventFile

from .test_tensorboard import parsed, records


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
    assert follower.rows() == [{"step": 1, "loss": 2.0}]
    rewind(file, 5)  # drops nothing
    assert follower.rows() == []
    write_atomic(file, b'{"step": 0, "loss": 3.0}\n')
    assert follower.rows() == [{"step": 0, "loss": 3.0}]


def test_a_run_that_is_resumed_writes_only_its_new_steps_for_tensorboard(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_text("".join(f'{{"step": {step}, "loss": {step}}}\n' for step in range(6)))
    follower = Follower(file)
    earlier = follower.rows()
    written = EventFile(tmp_path, earlier[-1]["step"] + 1)
    rewind(file, 4)  # a checkpoint after step 3
    with file.open("a") as out:
        out.writelines(f'{{"step": {step}, "loss": 9}}\n' for step in (4, 5, 6))
    written.add(follower.rows())
    events = [parsed(message) for message in records(written.path)][1:]
    assert [event[2] for event in events] == [[6], [4], [4], [5], [6]]  # two beginnings, three steps
    assert [7 in event for event in events] == [True, True, False, False, False]


def test_rewind_leaves_a_file_alone_that_has_nothing_to_drop(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_text('{"step": 0}\n{"step": 1}\n')
    before = file.stat().st_ino
    rewind(file, 2)
    assert file.stat().st_ino == before
    rewind(file, 1)
    assert file.read_text() == '{"step": 0}\n'


def test_the_rate_is_of_steps_that_were_learned_also_where_a_run_goes_back() -> None:
    def row(step: int) -> dict[str, float]:
        return {"step": step, "tokens": 100 * (step + 1), "seconds": 2.0, "tokens_per_s": 50.0}

    rate = Rate()
    for second, step in enumerate([10, 11, 4, 5, 5000]):  # back to step 4, then past all up to 5,000
        rate.add([row(step)], 2.0 * second)
    assert rate.per_second(row(5000), 8.0) == 50.0
    assert Rate().per_second(row(0), 3.0) == 50.0
