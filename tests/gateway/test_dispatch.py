"""The dispatcher with real work: whatever dies, the ledger and the store end as if nothing had."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest
from processes import Processes, make_dispatcher
from sqlalchemy.exc import OperationalError
from work_fixtures import ask_build, entry, write_raw

from gateway.jobs import dispatch
from gateway.jobs.cluster import Unreachable
from gateway.jobs.dispatch import Dispatcher
from gateway.jobs.journal import JOURNAL, LOG
from gateway.ledger import entries
from gateway.ledger.database import Database
from gateway.ledger.states import ENDED
from manifest.artifact import open_artifact


def turn_until_ended(dispatcher: Dispatcher, *ids: str, limit_s: float = 90.0) -> None:
    end = time.monotonic() + limit_s
    while not all(entry(dispatcher.database, one).state in ENDED for one in ids):
        assert time.monotonic() < end, [entry(dispatcher.database, one).note for one in ids]
        dispatcher.turn()
        time.sleep(0.1)


def turn_until_state(dispatcher: Dispatcher, one: str, *states: str, limit_s: float = 60.0) -> None:
    end = time.monotonic() + limit_s
    while entry(dispatcher.database, one).state not in states:
        assert time.monotonic() < end, entry(dispatcher.database, one).note
        dispatcher.turn()
        time.sleep(0.05)


def test_a_build_is_carried_out_and_its_result_is_in_the_store(dispatcher: Dispatcher, tmp_path: Path) -> None:
    build = ask_build(dispatcher.database, write_raw(tmp_path / "raw"))
    turn_until_ended(dispatcher, build)
    row = entry(dispatcher.database, build)
    assert row.state == "succeeded", row.failure
    assert row.result is not None
    assert open_artifact(f"{tmp_path}/store/{row.result['path']}", kind="mixture").manifest.id == row.result["id"]
    assert row.identity is not None


def test_a_recipe_that_its_data_refuse_fails_with_the_message_and_the_log(
    dispatcher: Dispatcher, tmp_path: Path
) -> None:
    raw = write_raw(tmp_path / "raw")
    (raw / "a" / "0.jsonl").write_text("this is no json\n" * 50)
    build = ask_build(dispatcher.database, raw)
    turn_until_ended(dispatcher, build)
    row = entry(dispatcher.database, build)
    assert row.state == "failed"
    assert row.failure is not None
    assert row.failure["input_is_wrong"]
    log = (tmp_path / "jobs" / str(row.job_id) / LOG).read_text()
    assert row.failure["detail"].splitlines()[0] in log


def test_a_process_that_is_killed_is_tried_again_and_goes_on(dispatcher: Dispatcher, tmp_path: Path) -> None:
    assert isinstance(dispatcher.cluster, Processes)
    build = ask_build(dispatcher.database, write_raw(tmp_path / "raw"))
    turn_until_state(dispatcher, build, "running")
    (process,) = dispatcher.cluster.running.values()
    os.killpg(process.pid, signal.SIGKILL)
    turn_until_ended(dispatcher, build)
    row = entry(dispatcher.database, build)
    assert (row.state, row.attempt, row.faults) == ("succeeded", 2, 1)


def test_a_cluster_that_is_lost_costs_an_attempt_and_no_fault(dispatcher: Dispatcher, tmp_path: Path) -> None:
    assert isinstance(dispatcher.cluster, Processes)
    builds = [ask_build(dispatcher.database, write_raw(tmp_path / "raw"), f"b{i}") for i in range(3)]
    turn_until_state(dispatcher, builds[0], "planning", "running")
    dispatcher.cluster.lose_everything()
    turn_until_ended(dispatcher, *builds)
    assert [entry(dispatcher.database, build).state for build in builds] == ["succeeded"] * 3
    assert entry(dispatcher.database, builds[0]).faults == 0
    assert entry(dispatcher.database, builds[0]).attempt == 2


def test_a_dispatcher_that_dies_is_taken_over_and_the_job_not_started_twice(
    database: Database, processes: Processes, tmp_path: Path
) -> None:
    first = make_dispatcher(database, processes, tmp_path, owner="first", lease_s=0.3)
    build = ask_build(database, write_raw(tmp_path / "raw"))
    turn_until_state(first, build, "planning", "running")
    time.sleep(0.4)  # first is no more
    second = make_dispatcher(database, processes, tmp_path, owner="second")
    turn_until_ended(second, build)
    row = entry(database, build)
    assert (row.state, row.attempt) == ("succeeded", 1)
    assert len(processes.running) == 1


def test_a_cluster_that_is_away_is_waited_for(dispatcher: Dispatcher, tmp_path: Path) -> None:
    assert isinstance(dispatcher.cluster, Processes)
    build = ask_build(dispatcher.database, write_raw(tmp_path / "raw"))
    dispatcher.cluster.up = False
    for _ in range(3):
        dispatcher.turn()
    assert entry(dispatcher.database, build).state == "queued"
    dispatcher.cluster.up = True
    turn_until_ended(dispatcher, build)
    assert entry(dispatcher.database, build).state == "succeeded"


def test_what_runs_can_be_cancelled_and_asked_for_again(dispatcher: Dispatcher, tmp_path: Path) -> None:
    raw = write_raw(tmp_path / "raw", documents=3000)
    build = ask_build(dispatcher.database, raw)
    turn_until_state(dispatcher, build, "running")
    with dispatcher.database.write() as session:
        found = entries.find(session, "build", build, for_update=True)
        assert found is not None
        entries.cancel(session, dispatcher.database.now(session), found)
    turn_until_ended(dispatcher, build)
    assert entry(dispatcher.database, build).state == "cancelled"
    assert ask_build(dispatcher.database, raw) == build
    turn_until_ended(dispatcher, build)
    assert entry(dispatcher.database, build).state == "succeeded"


def test_two_builds_of_the_same_content_have_one_identity(dispatcher: Dispatcher, tmp_path: Path) -> None:
    raws = [write_raw(tmp_path / name) for name in ("here", "there")]
    database = dispatcher.database
    builds = []
    for i, raw in enumerate(raws):
        builds.append(ask_build(database, raw, "same"))
        with database.write() as session:
            found = entries.find(session, "build", builds[-1])
            assert found is not None
            found.key = f"listing {i}"
    turn_until_ended(dispatcher, *builds)
    first, second = (entry(database, build) for build in builds)
    assert first.identity == second.identity
    assert first.result == second.result
    with database.read() as session:
        assert entries.twin(session, second) == first.id


def test_a_journal_that_cannot_be_read_costs_an_attempt_and_holds_up_nobody(
    dispatcher: Dispatcher, tmp_path: Path
) -> None:
    raw = write_raw(tmp_path / "raw")
    builds = [ask_build(dispatcher.database, raw, f"b{i}") for i in range(2)]
    dispatcher.turn()
    job = entry(dispatcher.database, builds[0]).job_id
    assert job is not None
    with (dispatcher.terms.jobs / job / JOURNAL).open("ab") as journal:
        journal.write(b'{"entry": "half a li\n')
    turn_until_ended(dispatcher, *builds)
    first, second = (entry(dispatcher.database, build) for build in builds)
    assert (first.state, second.state, second.faults) == ("succeeded", "succeeded", 0)
    assert (first.attempt, first.faults) == (2, 1)


def test_what_nobody_foresaw_does_not_end_the_dispatcher(
    dispatcher: Dispatcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "ERROR_PAUSE_S", 0.05)
    troubles = [
        RuntimeError("nobody foresaw this"),
        OSError("no space"),
        OperationalError("SELECT", {}, OSError("away")),
    ]

    class Troubled(Processes):
        def ready(self) -> bool:
            if troubles:
                raise troubles.pop(0)
            return True

    dispatcher.cluster = Troubled()
    build = ask_build(dispatcher.database, write_raw(tmp_path / "raw"))
    thread = threading.Thread(target=dispatcher.run)
    thread.start()
    try:
        end = time.monotonic() + 60
        while entry(dispatcher.database, build).state != "succeeded":
            assert time.monotonic() < end
            time.sleep(0.1)
    finally:
        dispatcher.stop.set()
        thread.join()
        dispatcher.cluster.close()


def test_a_job_that_begins_after_it_was_given_up_ends_at_once(dispatcher: Dispatcher, tmp_path: Path) -> None:
    class Late(Processes):
        """Takes a job, and says that it did not."""

        def submit(self, job: str, directory: Path) -> None:
            late.append((job, directory))
            raise Unreachable("timed out")

    late: list[tuple[str, Path]] = []
    processes, dispatcher.cluster = dispatcher.cluster, Late()
    build = ask_build(dispatcher.database, write_raw(tmp_path / "raw"))
    dispatcher.turn()
    with dispatcher.database.write() as session:
        found = entries.find(session, "build", build, for_update=True)
        assert found is not None
        entries.cancel(session, dispatcher.database.now(session), found)
    dispatcher.turn()
    assert entry(dispatcher.database, build).state == "cancelled"
    processes.submit(*late[0])
    (process,) = processes.running.values()  # type: ignore[attr-defined]
    assert process.wait(60) == 143
    assert not (tmp_path / "store").exists()
