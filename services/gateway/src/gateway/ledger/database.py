"""The database of the ledger: SQLite in WAL mode, or PostgreSQL, with the same tables.

`open_database(url)` brings the tables up to date (Alembic) and returns an engine; every transaction that writes takes
the write lock at its start, so that none fails half-way for another's sake.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, OperationalError
from sqlalchemy.orm import Session
from sqlalchemy.pool import ConnectionPoolEntry

from manifest.errors import InputError

BUSY_MS = 30_000
SQLITE_CLOCK = "SELECT (julianday('now') - 2440587.5) * 86400.0"
POSTGRES_CLOCK = "SELECT extract(epoch from clock_timestamp())"
MIGRATION_LOCK = 0x77696E6E  # any number, the same for all who migrate

DRIVERS = {"postgresql": "postgresql+psycopg", "postgres": "postgresql+psycopg"}


class Database:
    """The ledger's database. `write` and `read` give sessions, each one transaction."""

    def __init__(self, engine: sa.Engine) -> None:
        self.engine = engine
        self.is_sqlite = engine.dialect.name == "sqlite"

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A transaction that may write; on SQLite it holds the write lock from its start."""
        with Session(self.engine) as session, session.begin():
            if self.is_sqlite:
                session.execute(sa.text("BEGIN IMMEDIATE"))
            yield session

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A transaction that only reads, and sees one state of the database."""
        with Session(self.engine) as session, session.begin():
            if self.is_sqlite:
                session.execute(sa.text("BEGIN"))
            yield session

    def now(self, session: Session) -> float:
        """The database's clock, in seconds since 1970: one clock for all who share a ledger."""
        return float(session.execute(sa.text(SQLITE_CLOCK if self.is_sqlite else POSTGRES_CLOCK)).scalar_one())

    def close(self) -> None:
        self.engine.dispose()


def open_database(url: str) -> Database:
    """The database at a URL, with its tables up to date. Raises InputError if it cannot be opened."""
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise InputError(f"--database {url!r} is no database URL; give sqlite:///… or postgresql://…") from error
    parsed = parsed.set(drivername=DRIVERS.get(parsed.drivername, parsed.drivername))
    if parsed.get_backend_name() not in ("sqlite", "postgresql"):
        raise InputError(f"--database {parsed.drivername}: the ledger is kept in SQLite or PostgreSQL")
    if parsed.get_backend_name() == "sqlite":
        if parsed.database in (None, "", ":memory:"):
            raise InputError(f"--database {url}: the ledger is to outlive the service; give a file, sqlite:////path")
        Path(str(parsed.database)).parent.mkdir(parents=True, exist_ok=True)
    engine = _engine(parsed)
    try:
        _migrate(engine)
    except OperationalError as error:
        engine.dispose()
        reason = str(error.orig).strip().splitlines()[0]
        raise InputError(f"--database {parsed.render_as_string()}: cannot be opened ({reason})") from error
    return Database(engine)


def _engine(url: sa.URL) -> sa.Engine:
    if url.get_backend_name() != "sqlite":
        return sa.create_engine(url, pool_pre_ping=True, pool_size=10, max_overflow=40)
    engine = sa.create_engine(
        url, connect_args={"timeout": BUSY_MS / 1000, "check_same_thread": False}, pool_size=10, max_overflow=40
    )
    sa.event.listen(engine, "connect", _prepare_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _: ConnectionPoolEntry) -> None:
    connection.isolation_level = None  # the driver would begin transactions behind our back
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", f"busy_timeout={BUSY_MS}"):
        connection.execute(f"PRAGMA {pragma}")


def _migrate(engine: sa.Engine) -> None:
    config = Config()
    config.set_main_option("script_location", str(files("gateway") / "migrations"))
    with engine.connect() as connection:
        if engine.dialect.name == "postgresql":  # several services may start at once
            connection.execute(sa.text(f"SELECT pg_advisory_lock({MIGRATION_LOCK})"))
        else:
            connection.execute(sa.text("BEGIN IMMEDIATE"))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        if engine.dialect.name == "postgresql":
            connection.execute(sa.text(f"SELECT pg_advisory_unlock({MIGRATION_LOCK})"))
        connection.commit()
