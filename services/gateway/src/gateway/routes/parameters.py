"""The parameters of routes, and the problems that they may answer with, as the OpenAPI document has them."""

from __future__ import annotations

import hashlib
from typing import Annotated, Any

from fastapi import Header, Path, Query, Request

from gateway.auth import Caller
from gateway.ledger.answers import Asked
from gateway.messages import Problem
from gateway.problems import MEDIA_TYPE

TITLES: dict[int, str] = {
    400: "The body is not JSON.",
    401: "There is no valid key.",
    403: "The key lacks a scope, or the request comes from another site.",
    404: "There is no such thing.",
    409: "It has ended, or has not.",
    413: "The body is too large.",
    415: "The body is not said to be JSON.",
    422: "A field is wrong; `errors` names it.",
    503: "The ledger cannot be reached.",
}

Id = Annotated[str, Path(max_length=64, pattern=r"^[a-z]+-[0-9a-f]+$")]
Cursor = Annotated[
    str | None, Query(max_length=400, pattern=r"^[\x20-\x7e]*$", description="`next` of the page before.")
]
Limit = Annotated[int, Query(ge=1, le=200)]
IdempotencyKey = Annotated[
    str | None,
    Header(
        max_length=255,
        min_length=1,
        pattern=r"^[\x20-\x7e]+$",
        description="A request that is sent again with its key is answered as the first time, and not done again.",
    ),
]


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that may answer with these problems, besides those that any may."""
    schema = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    always = (401, 403, 422, 503)
    return {
        status: {"description": TITLES[status], "content": schema, "model": Problem}
        for status in sorted({*always, *statuses})
    }


def asked(request: Request, caller: Caller, key: str | None, body: bytes = b"") -> Asked | None:
    """What identifies this POST, if it came with a key."""
    if key is None:
        return None
    digest = hashlib.sha256(f"{request.method} {request.url.path}\n".encode() + body).hexdigest()
    return Asked(caller.id, key, digest)
