"""What the routes share: rows as messages, ids, cursors, and the problems that any route may answer with."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import Header, Path, Query, Request
from sqlalchemy.orm import Session

from gateway.auth import Caller
from gateway.ledger import entries
from gateway.ledger.answers import Asked
from gateway.ledger.states import Kind
from gateway.ledger.tables import EntryRow, EventRow
from gateway.messages import Build, Event, Problem, Report, Run
from gateway.problems import MEDIA_TYPE, ProblemError

MESSAGES: dict[str, type[Build] | type[Run] | type[Report]] = {"build": Build, "run": Run, "report": Report}
TITLES: dict[int, str] = {
    400: "The body is not JSON.",
    401: "There is no valid key.",
    403: "The key lacks a scope, or the request comes from another site.",
    404: "There is no such thing.",
    409: "It has ended, or has not.",
    413: "The body is too large.",
    415: "The body is not said to be JSON.",
    422: "A field is wrong; `errors` names it.",
    503: "The ledger cannot be reached.",
}

Id = Annotated[str, Path(max_length=64, pattern=r"^[a-z]+-[0-9a-f]+$")]
Cursor = Annotated[str | None, Query(max_length=400, description="`next` of the page before.")]
Limit = Annotated[int, Query(ge=1, le=200)]
IdempotencyKey = Annotated[
    str | None,
    Header(
        max_length=255,
        min_length=1,
        pattern=r"^[\x20-\x7e]+$",
        description="A request that is sent again with its key is answered as the first time, and not done again.",
    ),
]


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that may answer with these problems, besides those that any may."""
    schema = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    always = (401, 403, 422, 503)
    return {
        status: {"description": TITLES[status], "content": schema, "model": Problem}
        for status in sorted({*always, *statuses})
    }


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


def asked(request: Request, caller: Caller, key: str | None, body: bytes = b"") -> Asked | None:
    """What identifies this POST, if it came with a key."""
    if key is None:
        return None
    digest = hashlib.sha256(f"{request.method} {request.url.path}\n".encode() + body).hexdigest()
    return Asked(caller.name, key, digest)


def _time(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
