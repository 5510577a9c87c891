"""The page: what goes on, what has been made, and how it went. Rendered here, kept fresh by HTMX.

GET  /  /builds  /builds/{id}  /mixtures/{path}  …       pages
GET  /page/…                                             the parts of them that change; 304 if they did not
POST /page/builds/{id}/cancel  …/retry  /session  …/end  what its forms do, from this very page only
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import Annotated, Literal
from urllib.parse import parse_qs, urlsplit

from fastapi import APIRouter, Depends, FastAPI, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import RedirectResponse
from fastapi.staticfiles import StaticFiles
from starlette.types import Scope

from gateway import artifacts
from gateway.auth import SCOPE_OF, SESSION_COOKIE, Caller, open_session, page_caller, service_of
from gateway.ledger import entries
from gateway.ledger.database import Database
from gateway.ledger.entries import HasEnded, StillGoes
from gateway.ledger.states import Kind
from gateway.service import Service
from gateway.web import render, views
from gateway.web.curve import MOST_POINTS, curve
from manifest.errors import InputError
from manifest.mixture import Mixture

router = APIRouter(include_in_schema=False)


Viewer = Annotated[Caller | None, Depends(page_caller)]
"""Who looks, as every key may; None if they must log in first."""

Before = Annotated[str | None, Query(max_length=400, pattern=r"^[^\x00-\x1f]*$")]
Verb = Literal["cancel", "retry"]

ALWAYS = "public, max-age=31536000, immutable"
MIXTURES_SHOWN = 6
MOST_FORM_BYTES = 4096


class Static(StaticFiles):
    """A file that is asked for by its digest never changes; any other is asked for anew each time."""

    def file_response(
        self, full_path: str | os.PathLike[str], stat_result: os.stat_result, scope: Scope, status_code: int = 200
    ) -> Response:
        response = super().file_response(full_path, stat_result, scope, status_code)
        response.headers["Cache-Control"] = ALWAYS if scope["query_string"].startswith(b"v=") else "no-cache"
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response


def mount_static(app: FastAPI) -> None:
    """Serves what the page loads under /static."""
    app.mount("/static", Static(directory=render.STATIC), name="static")


@router.get("/")
def overview(request: Request, caller: Viewer) -> Response:
    if caller is None:
        return _login(request)
    service = service_of(request)
    mixtures = artifacts.mixtures_page(service.store, cursor=None, limit=MIXTURES_SHOWN)
    return _page(request, "overview.html", caller, now=views.now(service), mixtures=mixtures)


@router.get("/page/now")
def now_part(request: Request, caller: Viewer) -> Response:
    if caller is None:
        return _reload()
    service = service_of(request)
    return render.fragment(request, "_now.html", now=views.now(service), **_given(service, caller))


@router.get("/page/mixtures")
def mixtures_part(request: Request, caller: Viewer) -> Response:
    if caller is None:
        return _reload()
    service = service_of(request)
    found = artifacts.mixtures_page(service.store, cursor=None, limit=MIXTURES_SHOWN)
    with service.database.read() as session:
        at = views.time_of(service.database.now(session))
    return render.fragment(request, "_mixtures.html", mixtures=found, at=at)


@router.get("/mixtures")
def mixtures_list(request: Request, caller: Viewer, before: Before = None) -> Response:
    if caller is None:
        return _login(request)
    service = service_of(request)
    found = artifacts.mixtures_page(service.store, cursor=before, limit=views.PER_PAGE)
    with service.database.read() as session:
        at = views.time_of(service.database.now(session))
    return _page(request, "mixtures.html", caller, mixtures=found, at=at, before=before)


@router.get("/mixtures/{path:path}")
def mixture(request: Request, caller: Viewer, path: str) -> Response:
    if caller is None:
        return _login(request)
    store = service_of(request).store
    try:
        told = artifacts.mixture(store, path)
        place, found = artifacts.find(store, told.path)
    except InputError as error:
        return _missing(request, caller, f"{error}.")
    assert isinstance(found, Mixture)
    return _page(request, "mixture.html", caller, mixture=found, place=place, made=told.created)


@router.post("/session")
async def begin_session(request: Request) -> Response:
    """The form that logs in: a key becomes a cookie that no script can read."""
    if not _is_from_here(request):
        return _foreign()
    body = await request.body()
    form = parse_qs(body[:MOST_FORM_BYTES].decode("utf-8", "replace"))
    key, to = (form.get(name, [""])[0] for name in ("key", "to"))
    cookie = await run_in_threadpool(open_session, service_of(request), key.strip())
    if cookie is None:
        complaint = "This key is not valid here, or was revoked."
        return render.page("login.html", status=401, to=_local(to), complaint=complaint)
    response = RedirectResponse(_local(to), 303)
    response.set_cookie(
        SESSION_COOKIE, cookie, httponly=True, samesite="strict", secure=request.url.scheme == "https", path="/"
    )
    return response


@router.post("/session/end")
def end_session(request: Request) -> Response:
    if not _is_from_here(request):
        return _foreign()
    response = RedirectResponse("/", 303)
    response.delete_cookie(SESSION_COOKIE, httponly=True, samesite="strict", path="/")
    return response


def _add_kind(kind: Kind) -> None:
    """The pages, the parts and the forms of one kind of entry."""

    def listing(request: Request, caller: Viewer, before: Before = None) -> Response:
        if caller is None:
            return _login(request)
        at, found = views.listing(service_of(request), kind, before)
        return _page(request, "entries.html", caller, at=at, listing=found, before=before)

    def detail(request: Request, caller: Viewer, entry_id: str) -> Response:
        if caller is None:
            return _login(request)
        service = service_of(request)
        found = views.detail(service, kind, entry_id)
        if found is None:
            return _missing(request, caller, f"There is no {kind} of this id.")
        return _page(
            request, "detail.html", caller, detail=found, asked=views.asked(found.entry), curve=_curve(service, found)
        )

    def part(request: Request, caller: Viewer, entry_id: str) -> Response:
        if caller is None:
            return _reload()
        service = service_of(request)
        found = views.detail(service, kind, entry_id)
        if found is None:
            return Response(status_code=404)
        return render.fragment(request, "_entry.html", detail=found, **_given(service, caller))

    def curve_part(request: Request, caller: Viewer, entry_id: str) -> Response:
        if caller is None:
            return _reload()
        service = service_of(request)
        found = views.detail(service, kind, entry_id)
        if found is None:
            return Response(status_code=404)
        return render.fragment(request, "_curve.html", detail=found, curve=_curve(service, found))

    def cancel(request: Request, caller: Viewer, entry_id: str) -> Response:
        return _act(request, caller, kind, entry_id, "cancel")

    def retry(request: Request, caller: Viewer, entry_id: str) -> Response:
        return _act(request, caller, kind, entry_id, "retry")

    gets: dict[str, Callable[..., Response]] = {
        f"/{kind}s": listing,
        f"/{kind}s/{{entry_id}}": detail,
        f"/page/{kind}s/{{entry_id}}": part,
    }
    if kind == "run":
        gets[f"/page/{kind}s/{{entry_id}}/curve"] = curve_part
    for path, endpoint in gets.items():
        router.add_api_route(path, endpoint, methods=["GET"], response_model=None)
    for path, endpoint in {"cancel": cancel, "retry": retry}.items():
        router.add_api_route(f"/page/{kind}s/{{entry_id}}/{path}", endpoint, methods=["POST"], response_model=None)


for _kind in views.KINDS:
    _add_kind(_kind)


def _act(request: Request, caller: Caller | None, kind: Kind, entry_id: str, verb: Verb) -> Response:
    """Cancels or retries, if the form was sent from here by someone who may."""
    home = f"/{kind}s/{entry_id}"
    if not _is_from_here(request):
        return _foreign()
    if caller is None:
        return _reload() if _is_htmx(request) else _login(request, to=home)
    if not caller.may(SCOPE_OF[kind]):
        return _said(request, caller, home, 403, f"Your key lacks the scope {SCOPE_OF[kind]}; nothing was done.")
    status, text = _carry_out(service_of(request).database, kind, entry_id, verb)
    return _said(request, caller, home, status, text)


def _carry_out(database: Database, kind: Kind, entry_id: str, verb: Verb) -> tuple[int, str]:
    """The status, and what to say."""
    with database.write() as session:
        row = views.find(session, kind, entry_id, for_update=True)
        if row is None:
            return 404, f"There is no {kind} of this id."
        try:
            (entries.cancel if verb == "cancel" else entries.retry)(session, database.now(session), row)
        except (HasEnded, StillGoes) as error:
            return 409, f"{error}."
        return 200, f"{row.name} is queued again." if verb == "retry" else f"{row.name} was asked to stop."


def _said(request: Request, caller: Caller, home: str, status: int, text: str) -> Response:
    """What an action comes to: for HTMX a line, else the entry's page, or a page that says why not."""
    if _is_htmx(request):
        response = render.page("_said.html", status=status, text=text, good=status == 200)
        response.headers["HX-Trigger"] = "ledger-changed"
        return response
    if status == 200:
        return RedirectResponse(home, 303)
    return _page(request, "message.html", caller, status=status, title="Not done", text=text, back=home)


def _page(request: Request, template: str, caller: Caller, *, status: int = 200, **context: object) -> Response:
    return render.page(template, status=status, **_given(service_of(request), caller), **context)


def _given(service: Service, caller: Caller) -> dict[str, object]:
    """What every template that shows entries may ask for."""
    return {
        "caller": caller,
        "may": {kind for kind in views.KINDS if caller.may(SCOPE_OF[kind])},
        "sessions": service.settings.needs_key,
        "raw_root": service.settings.raw_root_uris[0],
    }


def _curve(service: Service, detail: views.Detail) -> object:
    path = getattr(detail.entry, "path", None)
    return None if path is None else curve(artifacts.metrics_thinned(service.store, path, MOST_POINTS))


def _is_htmx(request: Request) -> bool:
    return "hx-request" in request.headers


def _login(request: Request, to: str | None = None) -> Response:
    return render.page("login.html", status=401, to=to or request.url.path, complaint=None)


def _missing(request: Request, caller: Caller, text: str) -> Response:
    return _page(request, "message.html", caller, status=404, title="Not here", text=text, back="/")


def _reload() -> Response:
    """What HTMX gets whose session has ended: the page is loaded again, and asks for a key."""
    return Response(status_code=401, headers={"HX-Refresh": "true", "Cache-Control": "no-store"})


def _foreign() -> Response:
    return Response("This form was sent from another site; nothing was done.\n", 403, media_type="text/plain")


def _is_from_here(request: Request) -> bool:
    """Whether a form was sent by this very site's page. A browser always says one of the two."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site == "same-origin"
    origin = request.headers.get("origin", "")
    return bool(origin) and urlsplit(origin).netloc == request.headers.get("host")


def _local(to: str) -> str:
    """A path of this site, whatever the form says."""
    return to if re.fullmatch(r"/(?![/\\])[\w./~-]*", to, re.ASCII) else "/"
