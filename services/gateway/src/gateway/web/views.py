"""What the templates are given. Everything is read in one transaction, so that a page agrees with itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, get_args

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from gateway.jobs.journal import last_lines
from gateway.ledger import entries
from gateway.ledger.states import ACTIVE, ENDED, Kind
from gateway.ledger.tables import EntryRow, EventRow
from gateway.messages import Build, Report, Run
from gateway.routes.present import to_entry
from gateway.service import Service

KINDS: tuple[Kind, ...] = get_args(Kind)
MOST_GOING, RECENT, PER_PAGE = 20, 6, 50
MOST_STATES, MOST_NOTES, LOG_LINES = 60, 40, 60
BUSY_S, IDLE_S = 2, 10
"""How often a browser asks again."""

AnyEntry = Build | Run | Report


@dataclass(frozen=True)
class Listing:
    """Some entries of one kind, newest first, and where the older ones begin."""

    kind: Kind
    items: Sequence[AnyEntry]
    next: str | None


@dataclass(frozen=True)
class Now:
    """What goes on and what has ended. `more`: how many more wait than are shown."""

    at: datetime
    banner: str | None
    going: Sequence[AnyEntry]
    more: int
    listings: Sequence[Listing]

    @property
    def every_s(self) -> int:
        return BUSY_S if self.going else IDLE_S

    @property
    def empty(self) -> bool:
        return not any(listing.items for listing in self.listings)


@dataclass(frozen=True)
class Moment:
    """A state that an entry came into. `until`: when it left it, if it has."""

    state: str
    at: datetime
    until: datetime | None


@dataclass(frozen=True)
class Detail:
    """An entry with its past. `log`: the end of what its newest attempt wrote."""

    at: datetime
    entry: AnyEntry
    moments: Sequence[Moment]
    notes: Sequence[tuple[datetime, str]]
    log: str

    @property
    def goes_on(self) -> bool:
        return self.entry.state not in ENDED

    @property
    def every_s(self) -> int:
        return BUSY_S if self.goes_on else IDLE_S


def now(service: Service) -> Now:
    with service.database.read() as session:
        at = time_of(service.database.now(session))
        going, more = _going(session)
        listings = [_listing(session, kind, None, RECENT) for kind in KINDS]
    return Now(at, _banner(service), going, more, listings)


def listing(service: Service, kind: Kind, before: str | None) -> tuple[datetime, Listing]:
    """A page of entries, and the time."""
    with service.database.read() as session:
        return time_of(service.database.now(session)), _listing(session, kind, before, PER_PAGE)


def detail(service: Service, kind: Kind, entry_id: str) -> Detail | None:
    """None if there is no such entry."""
    with service.database.read() as session:
        row = find(session, kind, entry_id)
        if row is None:
            return None
        log = last_lines(service.settings.jobs / row.job_id, LOG_LINES) if row.job_id else ""
        return Detail(
            time_of(service.database.now(session)),
            to_entry(session, row),
            _moments(session, row),
            _notes(session, row),
            log,
        )


def find(session: Session, kind: Kind, entry_id: str, *, for_update: bool = False) -> EntryRow | None:
    """An entry by what stands in an address, which may be anything."""
    return entries.find(session, kind, entry_id, for_update=for_update) if entry_id.isprintable() else None


def asked(entry: AnyEntry) -> dict[str, Any]:
    """What was asked for besides the recipe: flat, for a list of terms."""
    fields: dict[str, Any] = entry.request.model_dump(mode="json", exclude={"recipe", "sizes"}, exclude_none=True)
    options: dict[str, Any] = fields.pop("options", {})
    return fields | options


def _going(session: Session) -> tuple[list[AnyEntry], int]:
    open_ones = EntryRow.state.in_((*sorted(ACTIVE), "queued"))
    wanted = select(EntryRow).where(open_ones).order_by(EntryRow.state == "queued", EntryRow.created, EntryRow.id)
    rows = session.scalars(wanted.limit(MOST_GOING)).all()
    total = session.scalar(select(func.count()).select_from(EntryRow).where(open_ones)) or 0
    return [to_entry(session, row) for row in rows], total - len(rows)


def _listing(session: Session, kind: Kind, before: str | None, limit: int) -> Listing:
    rows, following = entries.page(session, kind, before=before, limit=limit)
    return Listing(kind, [to_entry(session, row) for row in rows], following)


def _moments(session: Session, row: EntryRow) -> list[Moment]:
    wanted = select(EventRow).where(EventRow.entry_id == row.id, EventRow.type == "state")
    found = session.scalars(wanted.order_by(EventRow.seq.desc()).limit(MOST_STATES)).all()[::-1]
    times = [time_of(event.at) for event in found]
    ends = [*times[1:], None]
    return [Moment(event.state, at, until) for event, at, until in zip(found, times, ends, strict=True)]


def _notes(session: Session, row: EntryRow) -> list[tuple[datetime, str]]:
    wanted = select(EventRow).where(EventRow.entry_id == row.id, EventRow.note.is_not(None))
    found = session.scalars(wanted.order_by(EventRow.seq.desc()).limit(MOST_NOTES)).all()[::-1]
    return [(time_of(event.at), event.note or "") for event in found]


def _banner(service: Service) -> str | None:
    dispatcher = service.dispatcher
    if dispatcher is None:
        return None
    if dispatcher.trouble:
        return dispatcher.trouble
    return None if dispatcher.ray_is_up else "Ray is starting; what waits begins when it is up."


def time_of(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
