"""Jobs as the dispatcher sees them: admit what waits, hold a lease on it, write down what it says, let go of it.

    admit       queued entries → a job with a lease, as long as there are CPUs
    hold        renews my leases, takes over those that have run out: the jobs that are mine now
    record      what a job has said → its entries; refused unless the lease is still mine (owner and fence)
    requeue     a job is lost: its entries go back to the queue, or fail if they keep dying

A transaction of another service, or of this one before it stalled, carries an older fence and changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from gateway.jobs.journal import Line
from gateway.ledger.entries import append, move, new_id, take_turn
from gateway.ledger.states import ENDED, way
from gateway.ledger.tables import EntryRow, EventRow, JobRow
from gateway.messages import Failure
from manifest.errors import WinnowError

BACKOFF_S = 2.0
PROGRESS_EVENT_S = 1.0
PROGRESS_EVENTS = 1000
"""A progress event follows the last by a second, or by a thousandth of the attempt's age: a month has some 10^4."""


class LeaseLost(WinnowError):  # noqa: N818 - a state of things rather than a fault
    """Another service has taken the job over."""


@dataclass(frozen=True)
class Held:
    """A job that is mine, under a fence. `offset`: how much of its journal is in the ledger."""

    id: str
    fence: int
    workers: int
    submitted: bool
    offset: int
    stopping_since: float | None
    entries: tuple[str, ...]
    cancelled: tuple[str, ...]
    """Those of the entries that were asked to stop."""


def admit(session: Session, now: float, *, owner: str, lease_s: float, cpus: int) -> list[str]:
    """Opens jobs for queued entries, first come first served, while their workers fit into the CPUs. Returns their ids.

    One that needs more CPUs than there are runs alone. Those that wait behind one that does not fit wait too: else a
    large one would never begin.
    """
    if session.scalars(_waiting(now).limit(1)).first() is None:
        return []
    take_turn(session)
    used = session.scalar(select(func.coalesce(func.sum(JobRow.workers), 0)).where(JobRow.closed.is_(False))) or 0
    opened: list[str] = []
    grouped: set[str] = set()
    for row in session.scalars(_waiting(now).limit(1000).with_for_update()).all():
        if row.id in grouped:
            continue
        arms = [row, *_others_of_group(session, row, now)]
        workers = max(arm.workers for arm in arms)
        if used and used + workers > cpus:
            break
        used += workers
        grouped |= {arm.id for arm in arms}
        opened.append(_open(session, now, arms, workers, owner, lease_s))
    return opened


def hold(session: Session, now: float, *, owner: str, lease_s: float, reachable: bool = True) -> list[Held]:
    """Renews the leases of this owner and takes over what nobody renews. Returns all jobs that are this owner's now.

    reachable: whether this owner reaches Ray. One that does not lets its leases run out, for others that do.
    """
    if reachable:
        _renew(session, now, owner, lease_s)
    jobs = session.scalars(select(JobRow).where(JobRow.closed.is_(False), JobRow.owner == owner).order_by(JobRow.id))
    return [_held(session, job) for job in jobs]


def _renew(session: Session, now: float, owner: str, lease_s: float) -> None:
    expired = (JobRow.closed.is_(False), JobRow.lease_until < now)
    tired = (JobRow.closed.is_(False), JobRow.owner == owner, JobRow.lease_until.between(now, now + lease_s * 2 / 3))
    session.execute(update(JobRow).where(*tired).values(lease_until=now + lease_s))
    taken = {"owner": owner, "fence": JobRow.fence + 1, "lease_until": now + lease_s}
    session.execute(update(JobRow).where(*expired).values(taken))


def release(session: Session, owner: str | None = None) -> None:
    """Lets all leases run out (of an owner): at a clean end, or where this service is known to be the only one."""
    which = [JobRow.closed.is_(False)] + ([JobRow.owner == owner] if owner else [])
    session.execute(update(JobRow).where(*which).values(lease_until=0.0))


def submitted(session: Session, held: Held, owner: str) -> None:
    """Ray has the job. Raises LeaseLost."""
    _mine(session, held, owner).submitted = True


def stopping(session: Session, held: Held, owner: str, now: float) -> None:
    """The job was asked to stop. Raises LeaseLost."""
    _mine(session, held, owner).stopping_since = now


def record(session: Session, now: float, held: Held, owner: str, lines: Iterable[Line], offset: int) -> None:
    """Writes down lines of the journal, up to a byte. What an entry says that is not this job's any more is dropped.

    Raises LeaseLost.
    """
    job = _mine(session, held, owner)
    job.offset = offset
    rows = {row.id: row for row in _entries(session, held.id)}
    for entry, said in groupby(lines, key=lambda line: line.entry):
        if entry in rows:
            for line in said:
                _apply(session, now, rows[entry], line)
    session.flush()
    if all(row.state in ENDED for row in rows.values()):
        job.closed = True


def requeue(session: Session, now: float, held: Held, owner: str, *, why: str, fault: bool, max_faults: int) -> None:
    """The job is lost. fault: its own process died, rather than Ray or a machine with it. Raises LeaseLost.

    The fault is of the entries that it worked on, or else of the first; the others only wait again.
    """
    _mine(session, held, owner).closed = True
    rows = [row for row in _entries(session, held.id) if row.state not in ENDED]
    to_blame = [row for row in rows if row.state != "queued"] or rows[:1]
    for row in rows:
        _give_back(session, now, row, why, fault and row in to_blame, max_faults)


def _give_back(session: Session, now: float, row: EntryRow, why: str, fault: bool, max_faults: int) -> None:
    row.faults += fault
    if row.cancel_requested:
        move(session, now, row, "cancelled")
    elif fault and row.faults >= max_faults:
        row.failure = Failure(detail=f"{why}; it was tried {row.attempt} times", input_is_wrong=False).model_dump()
        move(session, now, row, "failed", note=why)
    else:
        row.job_id, row.progress = None, None
        row.turn_after = now + BACKOFF_S**row.faults if fault else 0.0
        note = f"{why}; will be tried again and go on from what is finished"
        if row.state == "queued":
            append(session, now, row, "note", note=note)
        else:
            move(session, now, row, "queued", note=note)


def _apply(session: Session, now: float, row: EntryRow, line: Line) -> None:
    if row.state in ENDED:
        return
    if line.identity is not None:
        row.identity = line.identity
    if line.note is not None:
        append(session, now, row, "note", note=line.note)
    if line.state in ("failed", "cancelled"):
        row.failure = line.failure.model_dump() if line.failure else None
        if line.state == "cancelled" or row.state == "queued":
            row.progress = None
        move(session, now, row, line.state, note=line.failure.detail if line.failure else None)
    elif line.state is not None:
        for state in way(row.state, line.state):  # type: ignore[arg-type]
            if state == "succeeded":
                row.result = line.result.model_dump() if line.result else None
                row.progress = None
            move(session, now, row, state)
    if line.progress is not None and row.state not in ENDED:
        _progress(session, now, row, line.progress.model_dump())


def _progress(session: Session, now: float, row: EntryRow, progress: dict[str, Any]) -> None:
    before = row.progress
    row.progress = progress
    last = select(func.max(EventRow.at)).where(EventRow.entry_id == row.id, EventRow.type == "progress")
    pause = max(PROGRESS_EVENT_S, (now - (row.started or now)) / PROGRESS_EVENTS)
    new_stage = before is None or before["stage"] != progress["stage"]
    if new_stage or progress["done"] == progress["total"] or now - (session.scalar(last) or 0) >= pause:
        append(session, now, row, "progress", progress=progress)


def _waiting(now: float) -> Any:
    waits = (EntryRow.state == "queued", EntryRow.job_id.is_(None), EntryRow.turn_after <= now)
    return select(EntryRow).where(*waits).order_by(EntryRow.id)


def _others_of_group(session: Session, row: EntryRow, now: float) -> list[EntryRow]:
    if row.group is None:
        return []
    same = (EntryRow.group == row.group, EntryRow.kind == row.kind, EntryRow.id != row.id)
    return list(session.scalars(_waiting(now).where(*same).with_for_update()))


def _open(session: Session, now: float, arms: list[EntryRow], workers: int, owner: str, lease_s: float) -> str:
    job = JobRow(
        id=new_id("job", now),
        workers=workers,
        owner=owner,
        fence=1,
        lease_until=now + lease_s,
        created=now,
        submitted=False,
        closed=False,
        offset=0,
    )
    session.add(job)
    session.flush()
    for arm in arms:
        arm.job_id, arm.attempt = job.id, arm.attempt + 1
    return job.id


def _mine(session: Session, held: Held, owner: str) -> JobRow:
    wanted = select(JobRow).where(JobRow.id == held.id, JobRow.closed.is_(False)).with_for_update()
    job = session.scalars(wanted).one_or_none()
    if job is None or job.owner != owner or job.fence != held.fence:
        raise LeaseLost(f"{held.id} is in other hands now")
    return job


def _entries(session: Session, job_id: str) -> list[EntryRow]:
    return list(
        session.scalars(select(EntryRow).where(EntryRow.job_id == job_id).order_by(EntryRow.id).with_for_update())
    )


def _held(session: Session, job: JobRow) -> Held:
    rows = session.scalars(select(EntryRow).where(EntryRow.job_id == job.id).order_by(EntryRow.id)).all()
    return Held(
        id=job.id,
        fence=job.fence,
        workers=job.workers,
        submitted=job.submitted,
        offset=job.offset,
        stopping_since=job.stopping_since,
        entries=tuple(row.id for row in rows),
        cancelled=tuple(row.id for row in rows if row.cancel_requested and row.state not in ENDED),
    )


def is_closed(session: Session, job_id: str) -> bool:
    return bool(session.scalar(select(JobRow.closed).where(JobRow.id == job_id)))


def all_cancelled(session: Session, job_id: str) -> bool:
    """Whether every entry of a job that has not ended was asked to stop."""
    goes = select(EntryRow.id).where(EntryRow.job_id == job_id, EntryRow.state.not_in(ENDED))
    return session.scalars(goes.where(EntryRow.cancel_requested.is_(False)).limit(1)).first() is None
