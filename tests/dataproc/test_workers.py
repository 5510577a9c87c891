"""Both kinds of workers give the same results, in order, once each, whatever dies on the way."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import defaultdict
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataproc.shuffle import Scattered, partition_batches, write_partitions
from dataproc.workers import Serial, Workers, open_workers
from manifest.errors import DataError, InputError, WinnowError
from manifest.record import Model

Row = tuple[str, int]


class Answer(Model):
    number: int
    text: str = ""


class Grouped(Model):
    rows: tuple[Row, ...]


def slow_double(number: int, *, log: Path) -> Answer:
    """Later items finish first. Every call leaves a line."""
    time.sleep(0.02 * (number % 3 == 0))
    with (log / f"{number}").open("a") as file:
        file.write("called\n")
    return Answer(number=2 * number)


def test_results_come_in_the_order_of_the_items(workers: Workers, tmp_path: Path) -> None:
    task = partial(slow_double, log=tmp_path)
    done = workers.map(task, range(20), result=Answer, notes=tmp_path / "notes", label="")
    assert [answer.number for answer in done] == list(range(0, 40, 2))


def test_no_item_is_no_work(workers: Workers, tmp_path: Path) -> None:
    assert workers.map(slow_double, [], result=Answer, notes=tmp_path / "notes", label="") == []


def fails_once_at_7(number: int, *, log: Path) -> Answer:
    answer = slow_double(number, log=log)
    if number == 7 and not (log / "failed").exists():
        (log / "failed").touch()
        raise DataError("item 7 cannot be read")
    return answer


def test_a_second_run_does_only_what_is_missing(workers: Workers, tmp_path: Path) -> None:
    run = partial(
        workers.map,
        partial(fails_once_at_7, log=tmp_path),
        range(12),
        result=Answer,
        notes=tmp_path / "notes",
        label="",
    )
    with pytest.raises(DataError, match="item 7 cannot be read"):
        run()
    before = {file.name: file.read_text().count("called") for file in tmp_path.iterdir() if file.name.isdigit()}
    finished = len(list((tmp_path / "notes").glob("*.json")))
    assert len(before) == finished + 1
    assert [answer.number for answer in run()] == list(range(0, 24, 2))
    after = {str(i): (tmp_path / str(i)).read_text().count("called") for i in range(12)}
    assert after == {str(i): 1 + (i == 7) for i in range(12)}


def killed_once(number: int, *, log: Path) -> Answer:
    marker = log / f"killed-{number}"
    if number in (2, 5) and not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return slow_double(number, log=log)


def test_a_killed_worker_is_started_again_and_its_task_repeated(ray_workers: Workers, tmp_path: Path) -> None:
    task = partial(killed_once, log=tmp_path)
    done = ray_workers.map(task, range(8), result=Answer, notes=tmp_path / "notes", label="")
    assert [answer.number for answer in done] == list(range(0, 16, 2))
    assert {file.name for file in tmp_path.glob("killed-*")} == {"killed-2", "killed-5"}


def own_pid(number: int) -> Answer:
    time.sleep(0.3)
    return Answer(number=os.getpid())


def test_workers_that_died_without_work_are_replaced(ray_workers: Workers, tmp_path: Path) -> None:
    pids = {a.number for a in ray_workers.map(own_pid, range(2), result=Answer, notes=tmp_path / "1", label="")}
    assert len(pids) == 2
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    (after,) = ray_workers.map(own_pid, [0], result=Answer, notes=tmp_path / "2", label="")
    assert after.number not in pids


def always_killed(number: int) -> Answer:
    os.kill(os.getpid(), signal.SIGKILL)
    return Answer(number=number)


@pytest.mark.slow
def test_a_task_that_kills_every_worker_ends_with_what_to_do(ray_workers: Workers, tmp_path: Path) -> None:
    with pytest.raises(WinnowError, match=r"a worker died 4 times over the same task.*with fewer workers"):
        ray_workers.map(always_killed, range(1), result=Answer, notes=tmp_path / "notes", label="")


def slow_and_failing(number: int, *, log: Path) -> Answer:
    if number == 0:
        while not (log / "begun").exists():  # the other worker may be starting yet
            time.sleep(0.01)
        raise DataError("the first fails while the second is at work")
    (log / "begun").touch()
    time.sleep(0.5)
    return slow_double(number, log=log)


def test_after_an_error_no_task_goes_on_in_the_background(ray_workers: Workers, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the first fails while"):
        ray_workers.map(
            partial(slow_and_failing, log=tmp_path), range(2), result=Answer, notes=tmp_path / "notes", label=""
        )
    assert (tmp_path / "1").exists()


# ---- exchange


def scatter(rows: list[Row], file: Path, *, partitions: int) -> None:
    table = pa.table({"key": pa.array([k for k, _ in rows], pa.string()), "value": pa.array([v for _, v in rows])})
    partition = np.array([sum(key.encode()) % partitions for key, _ in rows], np.int64)
    write_partitions(file, table.cast(pa.schema([("key", pa.string()), ("value", pa.int64())])), partition, partitions)


def gather(partition: int, rows: Scattered) -> Grouped:
    return Grouped(rows=tuple((r["key"], r["value"]) for batch in rows for r in batch.to_pylist()))


def group_by(items: list[list[Row]], partitions: int) -> list[tuple[Row, ...]]:
    found: dict[int, list[Row]] = defaultdict(list)
    for rows in items:
        for key, value in rows:
            found[sum(key.encode()) % partitions].append((key, value))
    return [tuple(found[p]) for p in range(partitions)]


def exchange(workers: Workers, items: list[list[Row]], partitions: int, scratch: Path) -> list[tuple[Row, ...]]:
    done = workers.exchange(
        partial(scatter, partitions=partitions),
        items,
        gather,
        partitions=partitions,
        result=Grouped,
        scratch=scratch,
        label="",
    )
    return [group.rows for group in done]


def test_an_exchange_is_a_group_by_in_order_of_the_items(workers: Workers, tmp_path: Path) -> None:
    rng = random.Random(0)
    items = [[(f"k{rng.randrange(40)}", rng.randrange(10**6)) for _ in range(rng.randrange(50))] for _ in range(9)]
    assert exchange(workers, items, 5, tmp_path) == group_by(items, 5)


@given(
    st.lists(st.lists(st.tuples(st.text("abc", max_size=2), st.integers(0, 9)), max_size=6), max_size=4),
    st.integers(1, 4),
)
@settings(max_examples=30, deadline=None)
def test_no_row_is_lost_or_doubled(
    tmp_path_factory: pytest.TempPathFactory, items: list[list[Row]], partitions: int
) -> None:
    scratch = tmp_path_factory.mktemp("exchange")
    assert exchange(Serial(), items, partitions, scratch) == group_by(items, partitions)


def test_a_finished_exchange_that_is_asked_for_again_answers_from_its_notes(tmp_path: Path) -> None:
    items = [[("a", 1), ("b", 2)], [("a", 3)]]
    first = exchange(Serial(), items, 3, tmp_path)
    assert exchange(Serial(), items, 3, tmp_path) == first == group_by(items, 3)


def test_partitions_can_be_read_in_any_order_and_more_than_once(tmp_path: Path) -> None:
    scatter([("a", 1), ("b", 2), ("a", 3)], tmp_path / "f", partitions=4)
    read = [gather(p, partition_batches((tmp_path / "f",), p)).rows for p in (2, 1, 2, 0, 3)]
    assert read == [(("b", 2),), (("a", 1), ("a", 3)), (("b", 2),), (), ()]


@pytest.mark.parametrize("spec", ["local:0", "local:two", "local", "threads:4", ""])
def test_other_workers_are_refused(spec: str) -> None:
    with pytest.raises(InputError, match="expected serial, local:N"), open_workers(spec):
        pass
