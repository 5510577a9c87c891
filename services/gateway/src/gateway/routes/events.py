"""What happens to an entry, as server-sent events: the id of an event is its number, so a client that was cut off
goes on where it was (Last-Event-ID). The last event is `end`, with the entry as it ended.
"""

# No `from __future__ import annotations`: FastAPI reads the annotations of routes that are made in a function.
import asyncio
import time
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.sse import EventSourceResponse, ServerSentEvent

from gateway.auth import Caller, ServiceHere, need, page_caller
from gateway.ledger import entries
from gateway.ledger.states import ENDED, Kind
from gateway.messages import Build, Event, Report, Run
from gateway.routes.parameters import Id, problems
from gateway.routes.present import require, to_entry, to_event
from gateway.service import Service

POLL_S = 0.5
CHECK_S = 5.0
BATCH = 200

After = Annotated[int, Query(ge=0, lt=2**31, description="Begin after this event.")]
LastEventId = Annotated[
    str | None, Header(max_length=20, pattern=r"^[0-9]{1,9}$", description="As browsers send it; before `after`.")
]


def stream(router: APIRouter, kind: Kind) -> None:
    """Adds the route of a kind."""

    def present(
        service: ServiceHere,
        _: Annotated[Caller, Depends(need("read"))],
        entry_id: Id,
    ) -> str:
        with service.database.read() as session:
            return require(session, kind, entry_id).id

    @router.get(
        "/{entry_id:entry}/events",
        name=f"events_of_{kind}",
        response_class=EventSourceResponse,
        responses=problems(404),
    )
    async def events(
        request: Request,
        service: ServiceHere,
        found: Annotated[str, Depends(present)],
        after: After = 0,
        last_event_id: LastEventId = None,
    ) -> AsyncIterator[ServerSentEvent]:
        """What happens to it as server-sent events, from the beginning or after an event; the last is `end`."""
        seq = after if last_event_id is None else int(last_event_id)
        checked = time.monotonic()
        while not _stopping(service):
            if time.monotonic() - checked > CHECK_S:
                if await run_in_threadpool(page_caller, request) is None:
                    return  # the key was revoked
                checked = time.monotonic()
            batch, entry = await run_in_threadpool(_look, service, kind, found, seq)
            for event in batch:
                seq = event.seq
                yield ServerSentEvent(data=event, event=event.type, id=str(seq))
            if entry is not None:
                yield ServerSentEvent(data=entry, event="end", id=str(seq))
                return
            if not batch:
                await asyncio.sleep(POLL_S)


def _stopping(service: Service) -> bool:
    return service.dispatcher is not None and service.dispatcher.stop.is_set()


def _look(service: Service, kind: Kind, entry_id: str, after: int) -> tuple[list[Event], Build | Run | Report | Any]:
    """The events after a number; and the entry, once it has ended and all is told."""
    with service.database.read() as session:
        row = require(session, kind, entry_id)
        found = [to_event(one) for one in entries.events(session, entry_id, after=after, limit=BATCH)]
        told = row.state in ENDED and (found[-1].seq if found else after) >= row.last_seq
        return found, to_entry(session, row) if told else None
