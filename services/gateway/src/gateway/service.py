"""What every part of the running service is given."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.jobs.dispatch import Dispatcher
from gateway.ledger.database import Database
from gateway.settings import Settings
from manifest.store import Store


@dataclass(frozen=True)
class Service:
    """One running gateway. `dispatcher` is None where only the HTTP side is wanted, as in some tests."""

    settings: Settings
    database: Database
    store: Store
    dispatcher: Dispatcher | None = None
