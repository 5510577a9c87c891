"""The ledger under several dispatchers: nobody's work is lost, doubled or written by two."""

from __future__ import annotations

import threading
import time
from itertools import count, pairwise
from typing import Any

import pytest
from sqlalchemy import select

from gateway.jobs.journal import Line
from gateway.ledger import entries, leases, site
from gateway.ledger.database import Database, open_database
from gateway.ledger.entries import HasEnded, IllegalTransition, New, StillGoes
from gateway.ledger.leases import Held, LeaseLost
from gateway.ledger.states import ENDED, NEXT, ORDER, State, way
from gateway.ledger.tables import EntryRow, EventRow, JobRow
from gateway.messages import Failure, Result
from manifest.errors import InputError
from manifest.progress import Progress

numbers = count()
MIXTURE = Result(path="mixtures/x-1", kind="mixture", name="x", id="1" * 64)


def ask(database: Database, **overrides: Any) -> str:
    """A queued entry; its id."""
    fields = {"kind": "build", "name": "x", "key": f"key {next(numbers)}", "request": {}, "resolved": {}}
    new = New(**{**fields, "workers": 1, "created_by": "tester", **overrides})  # type: ignore[arg-type]
    with database.write() as session:
        return entries.submit(session, database.now(session), new)[0].id


def admit(database: Database, owner: str = "a", *, cpus: int = 2, lease_s: float = 60.0) -> list[Held]:
    with database.write() as session:
        now = database.now(session)
        leases.admit(session, now, owner=owner, lease_s=lease_s, cpus=cpus)
        return leases.hold(session, now, owner=owner, lease_s=lease_s)


def say(database: Database, held: Held, owner: str = "a", **said: Any) -> None:
    entry = said.pop("entry", held.entries[0])
    with database.write() as session:
        lines = [Line(entry=entry, at=0.0, **said)]
        leases.record(session, database.now(session), held, owner, lines, held.offset + 1)


def row(database: Database, entry: str) -> EntryRow:
    with database.read() as session:
        found = session.get_one(EntryRow, entry)
        session.expunge(found)
        return found


def states(database: Database, entry: str) -> list[str]:
    """The states that an entry went through, as its events tell."""
    with database.read() as session:
        return [e.state for e in entries.events(session, entry, after=0, limit=1000) if e.type == "state"]


def lose(database: Database, held: Held, *, fault: bool, owner: str = "a") -> None:
    with database.write() as session:
        now = database.now(session)
        leases.requeue(session, now, held, owner, why="lost", fault=fault, max_faults=3)


def test_an_entry_goes_through_every_state_on_its_way(database: Database) -> None:
    entry = ask(database)
    (held,) = admit(database)
    say(database, held, state="planning")
    say(database, held, state="running", progress=Progress(stage="s", done=1, total=2, unit="files"))
    say(database, held, state="succeeded", result=MIXTURE)
    assert states(database, entry) == ["queued", *ORDER]
    assert row(database, entry).result == MIXTURE.model_dump()
    assert admit(database) == []  # the job is closed


@pytest.mark.parametrize("current", NEXT)
@pytest.mark.parametrize("wanted", NEXT)
def test_only_the_transitions_of_the_table_happen(database: Database, current: State, wanted: State) -> None:
    entry = ask(database)
    with database.write() as session:
        found = session.get_one(EntryRow, entry)
        found.state = current
        if wanted in NEXT[current]:
            entries.move(session, 0.0, found, wanted)
            assert found.state == wanted
        else:
            with pytest.raises(IllegalTransition, match=f"{current} → {wanted}"):
                entries.move(session, 0.0, found, wanted)


def test_the_way_to_success_leaves_out_no_state() -> None:
    for current in ("queued", *ORDER):
        for wanted in ORDER:
            passed = [current, *way(current, wanted)]
            assert all(after in NEXT[before] for before, after in pairwise(passed))


def test_the_same_request_is_the_same_entry_also_when_asked_at_once(database_url: str) -> None:
    databases = [open_database(database_url) for _ in range(8)]
    found: list[tuple[str, bool]] = []

    def ask_too(database: Database) -> None:
        new = New("build", "x", "the key", {}, {}, 1, "tester")
        with database.write() as session:
            made, is_new = entries.submit(session, database.now(session), new)
            found.append((made.id, is_new))

    threads = [threading.Thread(target=ask_too, args=(database,)) for database in databases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for database in databases:
        database.close()
    assert len({entry for entry, _ in found}) == 1
    assert sum(is_new for _, is_new in found) == 1
    assert len(found) == 8


def test_dispatchers_that_admit_at_once_never_use_more_cpus_than_there_are(database_url: str) -> None:
    databases = [open_database(database_url) for _ in range(4)]
    for _ in range(12):
        ask(databases[0])
    threads = [
        threading.Thread(target=admit, args=(database, f"owner {i}"), kwargs={"cpus": 5})
        for i, database in enumerate(databases)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with databases[0].read() as session:
        jobs = session.scalars(select(JobRow)).all()
        carried_out = session.scalars(select(EntryRow.id).where(EntryRow.job_id.is_not(None))).all()
    for database in databases:
        database.close()
    assert len(jobs) == 5
    assert len(carried_out) == 5


def test_first_come_first_served_also_behind_a_large_one(database: Database) -> None:
    first, large, last = ask(database), ask(database, workers=2), ask(database)
    (held,) = admit(database)
    assert held.entries == (first,)
    say(database, held, state="succeeded", result=MIXTURE)
    assert [job.entries for job in admit(database)] == [(large,)]
    assert row(database, last).job_id is None


def test_one_that_needs_more_cpus_than_there_are_runs_alone(database: Database) -> None:
    large, small = ask(database, workers=64), ask(database)
    assert [job.entries for job in admit(database)] == [(large,)]
    assert row(database, small).job_id is None


def test_runs_of_one_group_share_a_job(database: Database) -> None:
    arms = [ask(database, kind="run", group="grid") for _ in range(3)]
    other = ask(database, kind="run")
    held = admit(database)
    assert {job.entries for job in held} == {tuple(arms), (other,)}
    (together,) = (job for job in held if len(job.entries) == 3)
    for arm in arms:
        say(database, together, entry=arm, state="succeeded", result=MIXTURE)
    assert [row(database, arm).state for arm in arms] == ["succeeded"] * 3


def test_a_lease_that_is_renewed_is_not_taken_over(database: Database) -> None:
    ask(database)
    (mine,) = admit(database, "a", lease_s=0.6)
    for _ in range(5):
        time.sleep(0.2)
        assert admit(database, "a", lease_s=0.6) == [mine]
        assert admit(database, "b", lease_s=0.6) == []


def test_who_lost_its_lease_writes_nothing_any_more(database: Database) -> None:
    entry = ask(database)
    (old,) = admit(database, "a", lease_s=0.05)
    time.sleep(0.1)
    (new,) = admit(database, "b")
    assert new.fence > old.fence
    with pytest.raises(LeaseLost):
        say(database, old, "a", state="succeeded", result=MIXTURE)
    assert row(database, entry).state == "queued"
    say(database, new, "b", state="planning")
    assert row(database, entry).state == "planning"


def test_who_takes_its_own_lapsed_lease_back_has_a_new_fence(database: Database) -> None:
    ask(database)
    (old,) = admit(database, "a", lease_s=0.05)
    time.sleep(0.1)
    (new,) = admit(database, "a")
    assert new.fence == old.fence + 1
    with pytest.raises(LeaseLost):
        say(database, old, "a", state="planning")


def test_what_a_lost_job_says_later_is_dropped(database: Database) -> None:
    entry = ask(database)
    (old,) = admit(database)
    say(database, old, state="planning")
    lose(database, old, fault=False)
    (new,) = admit(database)
    assert new.id != old.id
    with pytest.raises(LeaseLost):
        say(database, old, state="succeeded", result=MIXTURE)
    assert row(database, entry).attempt == 2


def test_work_that_keeps_dying_fails_in_the_end_with_its_last_words(database: Database) -> None:
    entry = ask(database)
    for _ in range(3):
        with database.write() as session:
            session.get_one(EntryRow, entry).turn_after = 0.0  # the pause is not waited for here
        (held,) = admit(database)
        lose(database, held, fault=True)
    assert row(database, entry).state == "failed"
    assert row(database, entry).failure == {
        "detail": "lost; it was tried 3 times",
        "input_is_wrong": False,
        "errors": [],
    }


def test_a_cluster_that_dies_is_not_the_works_fault(database: Database) -> None:
    entry = ask(database)
    for _ in range(10):
        (held,) = admit(database)
        lose(database, held, fault=False)
    assert row(database, entry).state == "queued"


def test_cancelling_what_waits_is_done_at_once_and_twice_is_a_conflict(database: Database) -> None:
    entry = ask(database)
    with database.write() as session:
        entries.cancel(session, 0.0, session.get_one(EntryRow, entry))
    assert row(database, entry).state == "cancelled"
    assert admit(database) == []
    with database.write() as session, pytest.raises(HasEnded, match="was cancelled"):
        entries.cancel(session, 0.0, session.get_one(EntryRow, entry))


def test_what_was_asked_to_stop_is_cancelled_when_its_job_is_lost(database: Database) -> None:
    entry = ask(database)
    (held,) = admit(database)
    say(database, held, state="planning")
    with database.write() as session:
        entries.cancel(session, 0.0, session.get_one(EntryRow, entry))
    (held,) = admit(database)
    assert held.cancelled == (entry,)
    lose(database, held, fault=True)
    assert row(database, entry).state == "cancelled"


def test_what_failed_is_queued_again_by_a_retry_or_by_asking_again(database: Database) -> None:
    entry = ask(database, key="again")
    (held,) = admit(database)
    say(database, held, state="failed", failure=Failure(detail="no", input_is_wrong=True))
    assert row(database, entry).failure is not None
    with database.write() as session:
        entries.retry(session, 0.0, session.get_one(EntryRow, entry))
    assert row(database, entry).state == "queued"
    (held,) = admit(database)
    say(database, held, state="cancelled")
    assert ask(database, key="again") == entry
    assert row(database, entry).state == "queued"
    with database.write() as session, pytest.raises(StillGoes):
        entries.retry(session, 0.0, session.get_one(EntryRow, entry))


def test_events_count_from_one_without_gaps_and_progress_is_not_a_flood(database: Database) -> None:
    entry = ask(database)
    (held,) = admit(database)
    say(database, held, state="running")
    for done in range(200):
        say(database, held, progress=Progress(stage="s", done=done, total=200, unit="files"))
    say(database, held, progress=Progress(stage="s", done=200, total=200, unit="files"))
    with database.read() as session:
        told = entries.events(session, entry, after=0, limit=1000)
        assert [event.seq for event in told] == list(range(1, len(told) + 1))
        progress = [event.progress for event in told if event.type == "progress"]
    assert progress[0]["done"] == 0  # type: ignore[index]
    assert progress[-1]["done"] == 200  # type: ignore[index]
    assert len(progress) < 60
    assert row(database, entry).progress["done"] == 200  # type: ignore[index]


def test_a_line_of_the_journal_that_is_read_twice_moves_nothing(database: Database) -> None:
    entry = ask(database)
    (held,) = admit(database)
    say(database, held, state="running")
    say(database, held, state="running")
    say(database, held, state="planning")
    assert states(database, entry) == ["queued", "planning", "running"]


def test_pages_are_newest_first_and_complete(database: Database) -> None:
    made = []
    for _ in range(7):
        made.append(ask(database))
        time.sleep(0.002)  # ids sort by milliseconds
    seen, cursor = [], None
    with database.read() as session:
        while True:
            rows, cursor = entries.page(session, "build", before=cursor, limit=3)
            seen += [found.id for found in rows]
            if cursor is None:
                break
    assert seen == made[::-1]


def test_ended_states_keep_their_events(database: Database) -> None:
    entry = ask(database)
    (held,) = admit(database)
    say(database, held, state="failed", failure=Failure(detail="no such file", input_is_wrong=True))
    with database.read() as session:
        last = session.scalars(select(EventRow).where(EventRow.entry_id == entry).order_by(EventRow.seq.desc())).first()
        assert last is not None
        assert (last.state, last.note) == ("failed", "no such file")
    assert row(database, entry).state in ENDED


def test_who_does_not_reach_ray_lets_others_take_over(database: Database) -> None:
    build = ask(database)
    (mine,) = admit(database, "a", lease_s=0.2)
    time.sleep(0.3)
    with database.write() as session:
        now = database.now(session)
        assert leases.hold(session, now, owner="a", lease_s=9, reachable=False) == [mine]
        assert leases.hold(session, now, owner="b", lease_s=9, reachable=False) == []
        (theirs,) = leases.hold(session, now, owner="b", lease_s=9)
    assert (theirs.entries, theirs.fence) == ((build,), mine.fence + 1)


def test_a_shared_ledger_is_about_one_home_and_store(database: Database) -> None:
    with database.write() as session:
        site.claim(session, "/home", "/store", moved=False)
    for home, store in (("/other", "/store"), ("/home", "s3://other")):
        with pytest.raises(InputError, match="--home /home --store /store"), database.write() as session:
            site.claim(session, home, store, moved=False)
    with database.write() as session:
        site.claim(session, "/home", "s3://other", moved=True)
    with database.write() as session:
        site.claim(session, "/home", "s3://other", moved=False)


def test_an_arm_that_dies_is_to_blame_and_not_those_behind_it(database: Database) -> None:
    first, *others = [ask(database, group="g") for _ in range(3)]
    for _ in range(3):
        with database.write() as session:
            session.get_one(EntryRow, first).turn_after = 0.0
        held = admit(database)
        job = next(job for job in held if first in job.entries)
        say(database, job, entry=first, state="running")
        with database.write() as session:
            leases.requeue(session, database.now(session), job, "a", why="its process died", fault=True, max_faults=3)
    assert (row(database, first).state, row(database, first).faults) == ("failed", 3)
    for other in others:
        assert (row(database, other).state, row(database, other).faults) == ("queued", 0)


def test_text_that_a_database_does_not_take_is_kept_readable(database: Database) -> None:
    entry = ask(database)
    (held,) = admit(database)
    with database.write() as session:
        leases.requeue(session, database.now(session), held, "a", why="died: a\0b\ud800", fault=True, max_faults=1)
    assert str(row(database, entry).note).startswith("died: a\ufffdb?")
