"""Entries as users see them: ask for one, look at it, cancel it, ask again, follow its events.

Every function works inside the caller's transaction (database.write or database.read).
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from gateway.ledger.states import ENDED, NEXT, Kind, State
from gateway.ledger.tables import EntryRow, EventRow, TurnRow
from manifest.errors import WinnowError


class IllegalTransition(WinnowError):  # noqa: N818 - these three are named as one would say them
    """A state that does not follow from the present one."""


class HasEnded(WinnowError):  # noqa: N818
    """There is nothing left to cancel."""


class StillGoes(WinnowError):  # noqa: N818
    """There is nothing to try again yet."""


@dataclass(frozen=True)
class New:
    """What is asked for. `key`: equal for equal requests. `resolved`: what the job needs beyond the request."""

    kind: Kind
    name: str
    key: str
    request: dict[str, Any]
    resolved: dict[str, Any]
    workers: int
    created_by: str
    group: str | None = None


def new_id(kind: str, now: float) -> str:
    """An id that sorts by time: kind, microseconds, and two random bytes."""
    return f"{kind}-{int(now * 1e6):014x}{secrets.token_hex(2)}"


def take_turn(session: Session) -> None:
    """Waits until no other transaction that took its turn is open, and holds the turn to the end of this one."""
    session.execute(update(TurnRow).values(count=TurnRow.count + 1))


def submit(
    session: Session, now: float, new: New, is_there: Callable[[EntryRow], bool] = lambda row: True
) -> tuple[EntryRow, bool]:
    """The entry for a request, and whether it is new.

    One that failed or was cancelled is queued again; so is one that succeeded, if what it published is not there.
    """
    take_turn(session)
    row = find_key(session, new.kind, new.key)
    if row is None:
        row = EntryRow(
            id=new_id(new.kind, now),
            kind=new.kind,
            name=new.name,
            key=new.key,
            state="queued",
            request=new.request,
            resolved=new.resolved,
            workers=new.workers,
            group=new.group,
            created=now,
            created_by=new.created_by,
            attempt=0,
            faults=0,
            turn_after=0.0,
            cancel_requested=False,
            last_seq=0,
        )
        session.add(row)
        session.flush()
        append(session, now, row, "state")
        return row, True
    if row.state in ("failed", "cancelled") or (row.state == "succeeded" and not is_there(row)):
        row.request, row.resolved, row.workers, row.group = new.request, new.resolved, new.workers, new.group
        again(session, now, row)
    return row, False


def find_key(session: Session, kind: Kind, key: str) -> EntryRow | None:
    return session.scalars(select(EntryRow).where(EntryRow.kind == kind, EntryRow.key == key)).one_or_none()


def find(session: Session, kind: Kind, entry_id: str, *, for_update: bool = False) -> EntryRow | None:
    """An entry by id; for_update: no other transaction changes it before this one ends."""
    wanted = select(EntryRow).where(EntryRow.kind == kind, EntryRow.id == entry_id)
    return session.scalars(wanted.with_for_update() if for_update else wanted).one_or_none()


def page(
    session: Session, kind: Kind, *, before: str | None, limit: int, states: Sequence[str] = ()
) -> tuple[list[EntryRow], str | None]:
    """Entries from the newest on, those before a cursor, and the cursor of what comes after."""
    wanted = select(EntryRow).where(EntryRow.kind == kind).order_by(EntryRow.id.desc()).limit(limit + 1)
    if before is not None:
        wanted = wanted.where(EntryRow.id < before)
    if states:
        wanted = wanted.where(EntryRow.state.in_(states))
    rows = list(session.scalars(wanted))
    return rows[:limit], rows[limit - 1].id if len(rows) > limit else None


def twin(session: Session, row: EntryRow) -> str | None:
    """The earliest other entry of the same content."""
    if row.identity is None:
        return None
    same = select(EntryRow.id).where(EntryRow.kind == row.kind, EntryRow.identity == row.identity, EntryRow.id < row.id)
    return session.scalars(same.order_by(EntryRow.id).limit(1)).one_or_none()


def cancel(session: Session, now: float, row: EntryRow) -> None:
    """Cancels what waits; asks what runs to stop. Asking twice is asking once. Raises HasEnded."""
    if row.state in ENDED:
        raise HasEnded(f"{row.id} has ended: it {_ended(row.state)}; there is nothing to cancel")
    if row.cancel_requested:
        return
    row.cancel_requested = True
    if row.job_id is None:
        move(session, now, row, "cancelled")
    else:
        append(session, now, row, "note", note="asked to stop")


def retry(session: Session, now: float, row: EntryRow) -> None:
    """Queues what failed or was cancelled again. Raises StillGoes."""
    if row.state not in ("failed", "cancelled"):
        what = "has succeeded" if row.state == "succeeded" else f"has not ended: it is {row.state}"
        raise StillGoes(f"{row.id} {what}; there is nothing to try again")
    again(session, now, row)


def again(session: Session, now: float, row: EntryRow) -> None:
    """Back to the queue, with what an earlier attempt left behind forgotten; its work in the store is not."""
    row.faults, row.turn_after, row.cancel_requested = 0, 0.0, False
    row.job_id = row.failure = row.result = row.progress = row.ended = row.note = None
    move(session, now, row, "queued")


def move(session: Session, now: float, row: EntryRow, state: State, *, note: str | None = None) -> None:
    """The one place where a state changes. Raises IllegalTransition."""
    current: State = row.state  # type: ignore[assignment]
    if state not in NEXT[current]:
        raise IllegalTransition(f"{row.id}: {current} → {state} is no transition")
    row.state = state
    if state == "planning" and row.started is None:
        row.started = now
    if state in ENDED:
        row.ended = now
    append(session, now, row, "state", note=note)


def append(
    session: Session,
    now: float,
    row: EntryRow,
    type_: str,
    *,
    progress: dict[str, Any] | None = None,
    note: str | None = None,
) -> None:
    """Writes an event; a note is also the entry's newest."""
    row.last_seq += 1
    if note is not None:
        note = note.encode("utf-8", "replace").decode().replace("\0", "\ufffd")  # PostgreSQL takes no other text
        row.note = note
    session.add(
        EventRow(entry_id=row.id, seq=row.last_seq, at=now, type=type_, state=row.state, progress=progress, note=note)
    )


def events(session: Session, entry_id: str, *, after: int, limit: int) -> list[EventRow]:
    """The events after a sequence number, in order."""
    wanted = select(EventRow).where(EventRow.entry_id == entry_id, EventRow.seq > after)
    return list(session.scalars(wanted.order_by(EventRow.seq).limit(limit)))


def _ended(state: str) -> str:
    return "was cancelled" if state == "cancelled" else state
