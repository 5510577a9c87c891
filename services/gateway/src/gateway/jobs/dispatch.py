"""The dispatcher: brings what the ledger says and what Ray does together, every second or so, for ever.

    each turn   renew leases, take over orphaned jobs ─► admit what waits ─► for every job of mine:
                  read its journal into the ledger · submit it · pass cancels on · ask Ray whether it still goes

It keeps nothing in memory that it needs: whatever is killed, the next turn finds the ledger, the journals and Ray.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from gateway.jobs import journal
from gateway.jobs.cluster import Cluster, Refused, Status, Unreachable
from gateway.ledger import leases
from gateway.ledger.database import Database
from gateway.ledger.leases import Held, LeaseLost
from gateway.ledger.tables import EntryRow
from manifest.errors import CorruptArtifact, WinnowError

CANCEL_GRACE_S = 20.0
LAST_WORDS = 8
ERROR_PAUSE_S = 2.0

log = logging.getLogger("gateway.dispatch")


@dataclass(frozen=True)
class Terms:
    """How jobs are carried out. `owner` names this life of this service."""

    owner: str
    jobs: Path
    store: str
    cpus: int
    lease_s: float
    poll_s: float
    max_faults: int


class Dispatcher:
    """Use as a thread: `run` until `stop` is set."""

    def __init__(self, database: Database, cluster: Cluster, terms: Terms) -> None:
        self.database = database
        self.cluster = cluster
        self.terms = terms
        self.stop = threading.Event()
        self.ray_is_up = False
        self.trouble: str | None = None

    def run(self) -> None:
        """Turns until asked to stop, then lets go of its leases. Whatever is away for a while is waited for."""
        pause_s = 0.0
        while not self.stop.wait(pause_s):
            pause_s = self.terms.poll_s
            try:
                self.turn()
            except (SQLAlchemyError, OSError, WinnowError) as error:
                self._fail(str(error))
                pause_s = ERROR_PAUSE_S
            except Exception:
                log.exception("a turn of the dispatcher failed; the next one tries again")
                self._fail("an error that should not happen; its traceback is in the service's log")
                pause_s = ERROR_PAUSE_S
        try:
            with self.database.write() as session:
                leases.release(session, self.terms.owner)
        except SQLAlchemyError as error:
            log.warning("leases are left to run out: %s", one_line(str(error)))

    def turn(self) -> None:
        """Everything once."""
        terms = self.terms
        self.ray_is_up = self.cluster.ready()
        with self.database.write() as session:
            now = self.database.now(session)
            if self.ray_is_up:
                leases.admit(session, now, owner=terms.owner, lease_s=terms.lease_s, cpus=terms.cpus)
            held = leases.hold(session, now, owner=terms.owner, lease_s=terms.lease_s, reachable=self.ray_is_up)
        troubles = [trouble for job in held if (trouble := self._try_to_attend(job))]
        self._say(troubles[0] if troubles else None)

    def _try_to_attend(self, job: Held) -> str | None:
        """What is in the way of a job, if anything is; it does not hold up the others."""
        try:
            self._attend(job)
        except (LeaseLost, Refused, OSError) as error:
            return str(error)
        except Unreachable as error:
            self.ray_is_up = False  # for the rest of this turn: a time limit is waited for once
            return str(error)
        return None

    def _attend(self, job: Held) -> None:
        status = self.cluster.status(job.id) if self.ray_is_up else None
        try:
            self._read_journal(job)  # after the status: a job that has ended has said all it had to say
        except CorruptArtifact as error:
            self._requeue(job, str(error), fault=True)
            return
        if not self.ray_is_up or self._is_closed(job):
            return
        if status is not None and status.ended:
            self._requeue(job, self._last_words(job, status), fault=True)
        elif status is None and job.submitted:
            self._requeue(job, "the Ray that carried it out is gone", fault=False)
        elif status is None and len(job.cancelled) == len(job.entries):
            self._requeue(job, "cancelled before it began", fault=False)
        elif not job.submitted:
            self._submit(job)
        elif job.cancelled:
            self._cancel(job)

    def _read_journal(self, job: Held) -> None:
        lines, offset = journal.read(self.terms.jobs / job.id, job.offset)
        if lines or not job.entries:
            with self.database.write() as session:
                leases.record(session, self.database.now(session), job, self.terms.owner, lines, offset)

    def _is_closed(self, job: Held) -> bool:
        with self.database.read() as session:
            return leases.is_closed(session, job.id)

    def _submit(self, job: Held) -> None:
        with self.database.read() as session:
            rows = session.scalars(select(EntryRow).where(EntryRow.job_id == job.id).order_by(EntryRow.id)).all()
            tasks = tuple(
                journal.Task(
                    entry=row.id, kind=row.kind, request=row.request, resolved=row.resolved, workers=row.workers
                )
                for row in rows
                if row.state == "queued"
            )
        locks = str(self.terms.jobs / journal.LOCKS)
        what = journal.Job(id=job.id, store=self.terms.store, locks=locks, alone=self.cluster.alone, tasks=tasks)
        directory = journal.write_job(self.terms.jobs, what)
        self.cluster.submit(job.id, directory)
        with self.database.write() as session:
            leases.submitted(session, job, self.terms.owner)
        log.info("%s: %s", job.id, ", ".join(job.entries))

    def _cancel(self, job: Held) -> None:
        """Asks the work of cancelled entries to stop; ends the job by force if it has only these and does not."""
        for entry in job.cancelled:
            journal.cancel_mark(self.terms.jobs / job.id, entry).touch()
        with self.database.write() as session:
            now = self.database.now(session)
            if not leases.all_cancelled(session, job.id):
                return
            if job.stopping_since is None:
                leases.stopping(session, job, self.terms.owner, now)
        if job.stopping_since is not None and now - job.stopping_since > CANCEL_GRACE_S:
            self.cluster.stop(job.id)

    def _requeue(self, job: Held, why: str, *, fault: bool) -> None:
        """Gives a job up. What may be left of it, or may yet begin, is told to end."""
        directory = self.terms.jobs / job.id
        if directory.is_dir():
            journal.closed_mark(directory).touch()
        with self.database.write() as session:
            now = self.database.now(session)
            leases.requeue(session, now, job, self.terms.owner, why=why, fault=fault, max_faults=self.terms.max_faults)
        log.warning("%s: %s", job.id, one_line(why))

    def _last_words(self, job: Held, status: Status) -> str:
        said = journal.last_lines(self.terms.jobs / job.id, LAST_WORDS)
        return f"its process died ({status.text})" + (f"; its last words:\n{said}" if said else "")

    def _fail(self, trouble: str) -> None:
        self.ray_is_up = False
        self._say(trouble)

    def _say(self, trouble: str | None) -> None:
        trouble = one_line(trouble) if trouble else None
        if trouble and trouble != self.trouble:  # once, not in every turn
            log.warning("%s", trouble)
        self.trouble = trouble


def one_line(text: str) -> str:
    """The first line of what somebody else wrote, for a log."""
    first = next(iter(text.splitlines()), "")
    return "".join(c if c.isprintable() else "\ufffd" for c in first)
