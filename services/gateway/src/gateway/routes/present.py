"""Rows of the ledger as messages."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy.orm import Session

from gateway.ledger import entries
from gateway.ledger.states import Kind
from gateway.ledger.tables import EntryRow, EventRow
from gateway.messages import Build, Event, Report, Run
from gateway.problems import ProblemError

MESSAGES: dict[str, type[Build] | type[Run] | type[Report]] = {"build": Build, "run": Run, "report": Report}


def to_entry(session: Session, row: EntryRow) -> Build | Run | Report:
    """A row of the ledger as a message."""
    fields: dict[str, Any] = {
        name: getattr(row, name)
        for name in ("id", "kind", "name", "state", "progress", "note", "attempt", "cancel_requested", "created_by")
    }
    fields |= {name: _time(getattr(row, name)) for name in ("created", "started", "ended")}
    fields |= {"job": row.job_id, "result": row.result, "failure": row.failure, "request": row.request}
    if row.kind == "build":
        fields |= {"identity": row.identity, "same_as": entries.twin(session, row)}
    if row.kind == "run":
        fields["path"] = row.resolved["path"]
    return MESSAGES[row.kind].model_validate(fields)


def to_event(row: EventRow) -> Event:
    return Event(
        seq=row.seq,
        at=datetime.fromtimestamp(row.at, UTC),
        type=row.type,
        state=row.state,
        progress=row.progress,
        note=row.note,
    )


def require(session: Session, kind: Kind, entry_id: str, *, for_update: bool = False) -> EntryRow:
    """The entry. Raises ProblemError 404."""
    row = entries.find(session, kind, entry_id, for_update=for_update)
    if row is None:
        raise ProblemError(404, f"there is no {kind} {entry_id}; GET /v1/{kind}s lists those there are")
    return row


def _time(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
