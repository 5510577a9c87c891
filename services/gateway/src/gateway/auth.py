"""Who asks: an API key as a bearer token or, for the page, in a cookie; on loopback without keys, whoever is there.

Without keys the service trusts its machine and not what a browser brings: a name in Host that is not loopback's, and
a request that another site sends, are refused. So is a cookie that another site sends along.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Depends, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from gateway.address import LOOPBACK
from gateway.ledger import keys
from gateway.ledger.keys import SCOPES, Scope
from gateway.ledger.states import Kind
from gateway.problems import ProblemError
from gateway.service import Service

SESSION_COOKIE = "winnow_key"
SCOPE_OF: dict[Kind, Scope] = {"build": "build", "run": "train", "report": "train"}
"""What one needs to ask for an entry, and to cancel it."""

_bearer = HTTPBearer(auto_error=False, description="An API key, as `gateway keys add` prints it.")


@dataclass(frozen=True)
class Caller:
    """Who asks, and what they may do: whoever may do something may also look. `id`: of the key."""

    id: str
    name: str
    scopes: frozenset[str]

    def may(self, scope: Scope) -> bool:
        return "admin" in self.scopes or scope in self.scopes or (scope == "read" and bool(self.scopes))


ANYONE_HERE = Caller("local", "local", frozenset(SCOPES))


def service_of(request: Request) -> Service:
    """The service behind the app."""
    found: Service = request.app.state.service
    return found


ServiceHere = Annotated[Service, Depends(service_of)]


def page_caller(request: Request) -> Caller | None:
    """Who asks, from a bearer token or the page's cookie; None if they must say so first. Raises ProblemError."""
    service = service_of(request)
    _require_same_site(request, keyless=not service.settings.needs_key)
    if not service.settings.needs_key:
        return ANYONE_HERE
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    return _caller(service, key.strip() if scheme.lower() == "bearer" else request.cookies.get(SESSION_COOKIE, ""))


def open_session(service: Service, key: str) -> str | None:
    """What the page's cookie is to hold for a key; None if the key is not valid."""
    key = key.strip()
    return key if _caller(service, key) is not None else None


def need(scope: Scope) -> Callable[..., Caller]:
    """A dependency: the caller, who has this scope. Raises ProblemError 401 or 403."""

    def caller(request: Request, _: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)] = None) -> Caller:
        found = page_caller(request)
        if found is None:
            sent = "authorization" in request.headers or SESSION_COOKIE in request.cookies
            detail = (
                "this API key is not known here, or was revoked; `gateway keys list` shows those that are valid"
                if sent
                else "an API key is needed: `winnow` takes it from WINNOW_KEY or --key-file, others send it as "
                "Authorization: Bearer wk_…; `gateway keys add` makes one"
            )
            raise ProblemError(401, detail, headers={"WWW-Authenticate": "Bearer"})
        if not found.may(scope):
            has = " ".join(sorted(found.scopes))
            raise ProblemError(403, f"the key of {found.name} has the scopes {has}; this needs {scope}")
        return found

    return caller


def _caller(service: Service, key: str) -> Caller | None:
    if not key:
        return None
    with service.database.read() as session:
        row = keys.check(session, key)
        return None if row is None else Caller(row.id, row.name, frozenset(row.scopes.split()))


def _require_same_site(request: Request, *, keyless: bool) -> None:
    host = request.headers.get("host", "")
    if keyless and _hostname(f"//{host}") not in LOOPBACK:
        raise ProblemError(403, f"without API keys the service answers to loopback names only; found Host {host!r}")
    origin = request.headers.get("origin")
    asserted = keyless or SESSION_COOKIE in request.cookies
    if asserted and origin is not None and _authority(origin) != host:
        raise ProblemError(403, f"a page of another site, {origin!r}, may not send requests here")
    if asserted and request.headers.get("sec-fetch-site") == "cross-site" and request.method not in ("GET", "HEAD"):
        raise ProblemError(403, "a page of another site may not send requests here")


def _hostname(authority: str) -> str | None:
    try:
        return urlsplit(authority).hostname
    except ValueError:
        return None


def _authority(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None
