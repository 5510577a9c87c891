"""Idempotency-Key: a POST that is sent twice is carried out once, and answered twice.

    with database.write() as session:
        row, status, replayed = once(session, now, asked, lambda: …)

After IETF's draft-ietf-httpapi-idempotency-key-header. Answers are kept for a week.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import delete
from sqlalchemy.orm import Session

from gateway.ledger.entries import take_turn
from gateway.ledger.tables import EntryRow, RequestRow
from manifest.errors import WinnowError

KEPT_S = 7 * 24 * 3600.0


class OtherRequest(WinnowError):  # noqa: N818 - named as one would say it
    """The key came before, with another request."""


@dataclass(frozen=True)
class Asked:
    """A POST with a key. `who` sent it; `digest` is of its method, path and body."""

    who: str
    key: str
    digest: str


def kept(session: Session, now: float, asked: Asked | None) -> tuple[EntryRow, int] | None:
    """What a request was answered before: the entry, as it is now, and the HTTP status. Raises OtherRequest."""
    found = session.get(RequestRow, (asked.who, asked.key)) if asked else None
    if asked is None or found is None or found.created < now - KEPT_S:
        return None
    if found.digest != asked.digest:
        raise OtherRequest(f"Idempotency-Key {asked.key!r} came with another request before; give each request its own")
    return session.get_one(EntryRow, found.entry_id), found.status


def once(
    session: Session, now: float, asked: Asked | None, act: Callable[[], tuple[EntryRow, int]]
) -> tuple[EntryRow, int, bool]:
    """The entry and the HTTP status that `act` gives, and whether they were given before. Raises OtherRequest."""
    if asked is None:
        return *act(), False
    take_turn(session)
    session.execute(delete(RequestRow).where(RequestRow.created < now - KEPT_S))
    before = kept(session, now, asked)
    if before is not None:
        return *before, True
    row, status = act()
    session.flush()
    session.add(
        RequestRow(who=asked.who, key=asked.key, digest=asked.digest, status=status, entry_id=row.id, created=now)
    )
    return row, status, False
