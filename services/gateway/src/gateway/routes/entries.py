"""Builds, runs and reports: one life, so one set of routes, made once for each kind.

POST   /v1/<kind>s              ask for one; ?dry_run=true: what it would be, and nothing is written
GET    /v1/<kind>s              newest first, by pages
GET    /v1/<kind>s/{id}         one
POST   /v1/<kind>s/{id}:cancel  stop it        POST …:retry  queue it again
GET    /v1/<kind>s/{id}/events  what happens to it, as it happens
GET    /v1/<kind>s/{id}/log     what its work prints
"""

# No `from __future__ import annotations`: FastAPI reads the annotations of routes that are made in a function.
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from sqlalchemy.orm import Session
from starlette.convertors import StringConvertor, register_url_convertor

from gateway.auth import SCOPE_OF, Caller, ServiceHere, need
from gateway.jobs import journal
from gateway.ledger import entries
from gateway.ledger.answers import Asked, OtherRequest, kept, once
from gateway.ledger.entries import HasEnded, StillGoes
from gateway.ledger.states import Kind, State
from gateway.ledger.tables import EntryRow
from gateway.messages import Build, Log, Report, Run
from gateway.problems import ProblemError
from gateway.requests import Understood
from gateway.routes.events import stream
from gateway.routes.parameters import Cursor, Id, IdempotencyKey, Limit, asked, problems
from gateway.routes.present import require, to_entry
from gateway.service import Service
from manifest.record import MANIFEST

MOST_LOG_BYTES = 256 * 1024


class _EntryConvertor(StringConvertor):
    """An id in a path, up to the colon before a verb."""

    regex = "[^/:]+"


register_url_convertor("entry", _EntryConvertor())

Reader = Annotated[Caller, Depends(need("read"))]


@dataclass(frozen=True)
class Kinds:
    """What tells one kind of entry from another: its messages, and what a request of it means."""

    kind: Kind
    request: Any
    message: Any
    pages: Any
    plan: Any
    understand: Callable[[Service, Any, str], Understood]
    make_plan: Callable[[Understood, str | None], Any]


def router_of(of: Kinds) -> APIRouter:
    """All routes of a kind."""
    router = APIRouter(prefix=f"/v1/{of.kind}s", tags=[f"{of.kind}s"])
    _add_submit(router, of)
    _add_reading(router, of)
    _add_change(router, of, "cancel", entries.cancel, "Stop it. What is finished stays; asking twice is asking once.")
    _add_change(router, of, "retry", entries.retry, "Queue what failed or was cancelled again.")
    return router


def _add_submit(router: APIRouter, of: Kinds) -> None:
    Asker = Annotated[Caller, Depends(need(SCOPE_OF[of.kind]))]

    @router.post(
        "",
        name=f"submit_{of.kind}",
        description=f"Ask for a {of.kind}. Asking for the same again gives the same {of.kind}, and one that failed or "
        "was cancelled is queued again.",
        status_code=201,
        response_model=of.message | of.plan,
        responses={
            200: {"description": "It was asked for before; or a dry run.", "model": of.message | of.plan},
            201: {"links": _links(of.kind)},
            **problems(400, 413, 415),
        },
    )
    def submit(
        request: Request,
        response: Response,
        service: ServiceHere,
        caller: Asker,
        body: of.request,  # type: ignore[name-defined]
        dry_run: Annotated[bool, Query(description="Only say what it would be.")] = False,
        idempotency_key: IdempotencyKey = None,
    ) -> Any:
        sent = json.dumps(body.model_dump(mode="json"), sort_keys=True).encode()
        known = None if dry_run else asked(request, caller, idempotency_key, sent)
        replayed = _replayed(service, known, response)
        if replayed is not None:
            return replayed
        understood = of.understand(service, body, caller.name)
        present, is_there = _look_up(service, understood)
        if dry_run:
            response.status_code = 200
            return of.make_plan(understood, present)

        def act(session: Session, now: float) -> tuple[EntryRow, int]:
            row, new = entries.submit(session, now, understood.new, lambda row: row.id != present or is_there)
            return row, 201 if new else 200

        return _carry_out(service, known, act, response)


def _look_up(service: Service, understood: Understood) -> tuple[str | None, bool]:
    """The entry of the same request, if there is one, and whether what it made is still in the store."""
    with service.database.read() as session:
        row = entries.find_key(session, understood.new.kind, understood.new.key)
        present, made = (None, {}) if row is None else (row.id, row.result or {})
    paths = [path for path in (made.get("path"), *made.get("also", [])) if path is not None]
    return present, all(service.store.exists(f"{path}/{MANIFEST}") for path in paths)


def _links(kind: Kind) -> dict[str, Any]:
    """Where the answer's id leads, for whoever reads the OpenAPI document."""
    leads_to = [f"get_{kind}", f"log_of_{kind}", f"cancel_{kind}", f"retry_{kind}"]
    parameters = {"entry_id": "$response.body#/id"}
    return {operation: {"operationId": operation, "parameters": parameters} for operation in leads_to}


def _add_reading(router: APIRouter, of: Kinds) -> None:
    @router.get(
        "",
        name=f"list_{of.kind}s",
        description=f"All {of.kind}s, newest first, by pages.",
        response_model=of.pages,
        responses=problems(),
    )
    def list_entries(
        service: ServiceHere,
        _: Reader,
        cursor: Cursor = None,
        limit: Limit = 50,
        state: Annotated[list[State], Query(max_length=7, description="Only those in one of these states.")] = [],  # noqa: B006
    ) -> Any:
        with service.database.read() as session:
            rows, after = entries.page(session, of.kind, before=cursor, limit=limit, states=state)
            return of.pages(items=[to_entry(session, row) for row in rows], next=after)

    @router.get(
        "/{entry_id:entry}",
        name=f"get_{of.kind}",
        description=f"One {of.kind}.",
        response_model=of.message,
        responses=problems(404),
    )
    def get(service: ServiceHere, _: Reader, entry_id: Id) -> Any:
        with service.database.read() as session:
            return to_entry(session, require(session, of.kind, entry_id))

    @router.get("/{entry_id:entry}/log", name=f"log_of_{of.kind}", responses=problems(404))
    def log(
        service: ServiceHere,
        _: Reader,
        entry_id: Id,
        offset: Annotated[int, Query(ge=0, lt=2**53, description="In bytes.")] = 0,
    ) -> Log:
        """What the newest attempt has printed, from a byte on."""
        with service.database.read() as session:
            row = require(session, of.kind, entry_id)
            job, attempt = row.job_id, row.attempt
        if job is None:
            return Log(text="", next_offset=0, attempt=attempt)
        text, after = journal.read_log(service.settings.jobs / job, offset, MOST_LOG_BYTES)
        return Log(text=text, next_offset=after, attempt=attempt)

    stream(router, of.kind)


def _add_change(
    router: APIRouter, of: Kinds, verb: str, change: Callable[[Session, float, EntryRow], None], description: str
) -> None:
    Asker = Annotated[Caller, Depends(need(SCOPE_OF[of.kind]))]

    @router.post(
        f"/{{entry_id:entry}}:{verb}",
        name=f"{verb}_{of.kind}",
        description=description,
        response_model=of.message,
        responses=problems(404, 409),
    )
    def change_entry(
        request: Request,
        response: Response,
        service: ServiceHere,
        caller: Asker,
        entry_id: Id,
        idempotency_key: IdempotencyKey = None,
    ) -> Any:
        def act(session: Session, now: float) -> tuple[EntryRow, int]:
            row = require(session, of.kind, entry_id, for_update=True)
            try:
                change(session, now, row)
            except (HasEnded, StillGoes) as error:
                raise ProblemError(409, str(error)) from error
            return row, 200

        return _carry_out(service, asked(request, caller, idempotency_key), act, response)


def _replayed(service: Service, known: Asked | None, response: Response) -> Build | Run | Report | None:
    """The answer that this request has had before, if it has."""
    with service.database.read() as session, _told():
        before = kept(session, service.database.now(session), known)
        return None if before is None else _answer(session, response, *before, replayed=True)


def _carry_out(
    service: Service,
    known: Asked | None,
    act: Callable[[Session, float], tuple[EntryRow, int]],
    response: Response,
) -> Build | Run | Report:
    """Does it, or finds that it was done; in one transaction."""
    with service.database.write() as session, _told():
        now = service.database.now(session)
        row, status, replayed = once(session, now, known, lambda: act(session, now))
        session.flush()
        return _answer(session, response, row, status, replayed=replayed)


def _answer(
    session: Session, response: Response, row: EntryRow, status: int, *, replayed: bool
) -> Build | Run | Report:
    response.status_code = status
    response.headers["Location"] = f"/v1/{row.kind}s/{row.id}"
    if replayed:
        response.headers["Idempotency-Replayed"] = "true"
    return to_entry(session, row)


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except OtherRequest as error:
        raise ProblemError(422, str(error), field=("header", "idempotency-key")) from error
