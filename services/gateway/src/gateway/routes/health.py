"""Whether the service lives, and whether it can do what it is for."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from gateway.auth import ServiceHere, page_caller
from gateway.problems import ProblemError

router = APIRouter(tags=["health"])


@router.get("/livez")
async def live() -> dict[str, str]:
    """This process answers."""
    return {"status": "ok"}


@router.get("/readyz", responses={503: {"description": "Not everything is there."}})
def ready(request: Request, service: ServiceHere, response: Response) -> dict[str, Any]:
    """The ledger can be reached, and Ray takes jobs. What is asked for before that waits in the queue.

    What the trouble is, if there is some, is for those who may read.
    """
    dispatcher = service.dispatcher
    checks = {"ledger": _ledger(service), "ray": dispatcher is not None and dispatcher.ray_is_up}
    response.status_code = 200 if all(checks.values()) else 503
    said = {"status": "ok" if all(checks.values()) else "not ready", **checks}
    return said | ({"trouble": dispatcher.trouble} if dispatcher and checks["ledger"] and _may_read(request) else {})


def _may_read(request: Request) -> bool:
    try:
        caller = page_caller(request)
    except ProblemError:
        return False
    return caller is not None and caller.may("read")


def _ledger(service: ServiceHere) -> bool:
    try:
        with service.database.read() as session:
            session.execute(text("SELECT 1"))
    except OperationalError:
        return False
    return True
