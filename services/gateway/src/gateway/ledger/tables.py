"""The tables of the ledger. Times are seconds since 1970 by the database's clock; JSON is text that Python reads.

    entries ──job_id──► jobs          a job carries out one entry, or several runs of one group
       │
       └── events                     what happened to an entry, in order
    requests                          answers by Idempotency-Key
    keys                              API keys, hashed
    turn                              one row, which whoever admits work holds for the length of a transaction
    site                              one row: which home and store this ledger is about

An entry may be written by the job that it points to alone, and a job by whoever holds its lease; so what a lost
attempt or a stalled service says later is refused.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, BigInteger, Float, ForeignKey, Index, String, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    type_annotation_map = {dict[str, Any]: JSON(none_as_null=True), float: Float(53), str: Text}


class JobRow(Base):
    """A submission to Ray; its id is the submission id. `closed`: nothing is to be heard of it any more.

    fence grows with every change of hands. `offset`: how many bytes of its journal are in the ledger.
    """

    __tablename__ = "jobs"
    __table_args__ = (Index("jobs_open", "closed", "lease_until"),)

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    workers: Mapped[int]
    owner: Mapped[str] = mapped_column(String(64))
    fence: Mapped[int] = mapped_column(default=1)
    lease_until: Mapped[float]
    submitted: Mapped[bool] = mapped_column(default=False)
    closed: Mapped[bool] = mapped_column(default=False)
    offset: Mapped[int] = mapped_column(BigInteger, default=0)
    stopping_since: Mapped[float | None]
    created: Mapped[float]


class EntryRow(Base):
    """A build, a run or a report. `key`: equal for requests that ask for the same; `identity`: equal for the same
    content. `turn_after`: not admitted before this time.
    """

    __tablename__ = "entries"
    __table_args__ = (
        Index("entries_by_kind", "kind", "id"),
        Index("entries_by_state", "state", "id"),
        Index("entries_by_identity", "identity"),
        Index("entries_by_key", "kind", "key", unique=True),
        Index("entries_by_job", "job_id"),
    )

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    kind: Mapped[str] = mapped_column(String(16))
    name: Mapped[str]
    key: Mapped[str] = mapped_column(String(64))
    identity: Mapped[str | None] = mapped_column(String(64))
    state: Mapped[str] = mapped_column(String(16))
    request: Mapped[dict[str, Any]]
    resolved: Mapped[dict[str, Any]]
    workers: Mapped[int]
    group: Mapped[str | None] = mapped_column("job_group", String(100))
    progress: Mapped[dict[str, Any] | None]
    note: Mapped[str | None]
    attempt: Mapped[int] = mapped_column(default=0)
    faults: Mapped[int] = mapped_column(default=0)
    turn_after: Mapped[float] = mapped_column(default=0.0)
    cancel_requested: Mapped[bool] = mapped_column(default=False)
    job_id: Mapped[str | None] = mapped_column(ForeignKey("jobs.id"))
    result: Mapped[dict[str, Any] | None]
    failure: Mapped[dict[str, Any] | None]
    created: Mapped[float]
    started: Mapped[float | None]
    ended: Mapped[float | None]
    created_by: Mapped[str] = mapped_column(String(100))
    last_seq: Mapped[int] = mapped_column(default=0)


class EventRow(Base):
    """Something that happened to an entry; seq counts from 1 without gaps."""

    __tablename__ = "events"

    entry_id: Mapped[str] = mapped_column(ForeignKey("entries.id"), primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    at: Mapped[float]
    type: Mapped[str] = mapped_column(String(16))
    state: Mapped[str] = mapped_column(String(16))
    progress: Mapped[dict[str, Any] | None]
    note: Mapped[str | None]


class RequestRow(Base):
    """A POST that came with an Idempotency-Key, and how it was answered."""

    __tablename__ = "requests"
    __table_args__ = (Index("requests_by_age", "created"),)

    who: Mapped[str] = mapped_column(String(100), primary_key=True)
    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    digest: Mapped[str] = mapped_column(String(64))
    status: Mapped[int]
    entry_id: Mapped[str] = mapped_column(ForeignKey("entries.id"))
    created: Mapped[float]


class KeyRow(Base):
    """An API key: its SHA-256, never itself. `revoked`: since when it is refused."""

    __tablename__ = "keys"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    name: Mapped[str] = mapped_column(String(100))
    sha256: Mapped[str] = mapped_column(String(64), unique=True)
    scopes: Mapped[str] = mapped_column(String(100))
    created: Mapped[float]
    revoked: Mapped[float | None]


class TurnRow(Base):
    """One row. Updating it first makes a transaction wait for all others that do: row lock or database lock alike."""

    __tablename__ = "turn"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    count: Mapped[int] = mapped_column(BigInteger, default=0)


class SiteRow(Base):
    """One row: the home and the store of the services that share this ledger."""

    __tablename__ = "site"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    home: Mapped[str]
    store: Mapped[str]
