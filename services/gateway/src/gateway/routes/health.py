"""Whether the service lives, and whether it can do what it is for."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from gateway.auth import ServiceHere

router = APIRouter(tags=["health"])


@router.get("/livez")
def live() -> dict[str, str]:
    """This process answers."""
    return {"status": "ok"}


@router.get("/readyz", responses={503: {"description": "Not everything is there."}})
def ready(service: ServiceHere, response: Response) -> dict[str, Any]:
    """The ledger can be reached, and Ray takes jobs. What is asked for before that waits in the queue."""
    dispatcher = service.dispatcher
    checks = {"ledger": _ledger(service), "ray": dispatcher is not None and dispatcher.ray_is_up}
    response.status_code = 200 if all(checks.values()) else 503
    trouble = dispatcher.trouble if dispatcher else None
    return {"status": "ok" if all(checks.values()) else "not ready", **checks, "trouble": trouble}


def _ledger(service: ServiceHere) -> bool:
    try:
        with service.database.read() as session:
            session.execute(text("SELECT 1"))
    except OperationalError:
        return False
    return True
