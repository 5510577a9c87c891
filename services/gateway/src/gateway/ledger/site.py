"""Services that share a ledger share a home and a store: what one has accepted, another may carry out."""

from __future__ import annotations

from sqlalchemy.orm import Session

from gateway.ledger.entries import take_turn
from gateway.ledger.tables import SiteRow
from manifest.errors import InputError


def claim(session: Session, home: str, store: str, *, moved: bool) -> None:
    """Makes sure that the ledger is about this home and store; moved: from now on. Raises InputError if it is not."""
    take_turn(session)
    site = session.get(SiteRow, 1)
    if site is None:
        session.add(SiteRow(id=1, home=home, store=store))
    elif moved:
        site.home, site.store = home, store
    elif (site.home, site.store) != (home, store):
        raise InputError(
            f"this ledger is that of services with --home {site.home} --store {site.store}, not {home} and {store}; "
            "give those or another --database. If they have moved, and no service runs over it, add --moved once"
        )
