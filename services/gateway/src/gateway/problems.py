"""Whatever goes wrong, said as RFC 9457 has it: what was found, where, what was expected, what to do.

{"type": "about:blank", "title": "Unprocessable Content", "status": 422, "detail": "dedup.threshold: …",
 "instance": "/v1/builds", "errors": [{"pointer": "/recipe/dedup/threshold", "detail": "…"}]}
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from sqlalchemy.exc import OperationalError, TimeoutError
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.messages import FieldError, Problem
from manifest.errors import FieldProblem, InputError, RecipeError, WinnowError

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_S = 5
MOST_FOUND_CHARS = 100

log = logging.getLogger("gateway.http")


class ProblemError(Exception):
    """An answer that is a problem. `field`: the path of the one field that is to blame."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        errors: Sequence[FieldError] = (),
        field: Sequence[str | int] = (),
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.errors = [*errors, *([FieldError.at(field, detail)] if field else [])]
        self.headers = headers or {}


@contextmanager
def blaming(*field: str | int, recipe: bool = False) -> Iterator[None]:
    """What is wrong with the input in this block is a 422, to blame on a field of the request.

    So is what the system says of names that are too long or no text. recipe: errors that name a field of the recipe are
    told of that field.
    """
    try:
        yield
    except (OSError, UnicodeError) as error:
        raise ProblemError(422, _printable(str(error)), field=field) from error
    except InputError as error:
        found: Sequence[FieldProblem] = error.problems if recipe and isinstance(error, RecipeError) else ()
        errors = [FieldError.at(("recipe", *problem.field), problem.message) for problem in found]
        raise ProblemError(422, str(error), errors=errors, field=() if errors else field) from error


def answer(request: Request, problem: ProblemError) -> Response:
    """The problem as a response."""
    body = Problem(
        title=HTTPStatus(problem.status).phrase,
        status=problem.status,
        detail=problem.detail,
        instance=request.url.path,
        errors=problem.errors,
    )
    return Response(_encode(body), problem.status, problem.headers, MEDIA_TYPE)


def _encode(body: Problem) -> bytes:
    """JSON; what a client sent that is no Unicode text is shown with replacement characters."""
    try:
        return body.model_dump_json().encode()
    except (UnicodeEncodeError, ValueError):
        texts = {"detail": _printable(body.detail), "instance": _printable(body.instance or "")}
        errors = [FieldError(pointer=_printable(e.pointer), detail=_printable(e.detail)) for e in body.errors]
        return body.model_copy(update={**texts, "errors": errors}).model_dump_json().encode()


def _printable(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def install(app: FastAPI) -> None:
    """Every error of the app, and of the framework, becomes a problem."""

    @app.exception_handler(ProblemError)
    def _problem(request: Request, error: ProblemError) -> Response:
        return answer(request, error)

    @app.exception_handler(RequestValidationError)
    def _invalid(request: Request, error: RequestValidationError) -> Response:
        return answer(request, _of_validation(request, error.errors()))

    @app.exception_handler(HTTPException)
    def _http(request: Request, error: HTTPException) -> Response:
        return answer(request, _of_http(app, request, error))

    @app.exception_handler(InputError)
    def _input(request: Request, error: InputError) -> Response:
        return answer(request, ProblemError(422, str(error)))

    @app.exception_handler(WinnowError)
    def _winnow(request: Request, error: WinnowError) -> Response:
        log.error("%s %s: %s", request.method, request.url.path, error)
        return answer(request, ProblemError(500, str(error)))

    @app.exception_handler(OperationalError)
    @app.exception_handler(TimeoutError)
    def _database(request: Request, error: OperationalError | TimeoutError) -> Response:
        log.error("%s %s: %s", request.method, request.url.path, error)
        headers = {"Retry-After": str(RETRY_AFTER_S)}
        return answer(request, ProblemError(503, "the ledger cannot be reached; try again shortly", headers=headers))

    @app.exception_handler(Exception)
    def _unexpected(request: Request, error: Exception) -> Response:
        detail = "an error that should not happen; its traceback is in the service's log"
        return answer(request, ProblemError(500, detail))


def _of_validation(request: Request, found: Sequence[Any]) -> ProblemError:
    if any(error["type"] == "json_invalid" for error in found):
        first = next(error for error in found if error["type"] == "json_invalid")
        reason = (first.get("ctx") or {}).get("error", first["msg"])
        place = f" at character {first['loc'][-1]}" if isinstance(first["loc"][-1], int) else ""
        return ProblemError(400, f"the body is not JSON{place}: {reason}")
    sent = request.headers.get("content-type", "")
    if not re.match(r"application/(.+\+)?json\b", sent) and any(error["loc"] == ("body",) for error in found):
        return ProblemError(415, f"the body is not JSON: send Content-Type: application/json (found {sent!r})")
    errors = [_field(error) for error in found]
    return ProblemError(422, "; ".join(f"{e.pointer or 'body'}: {e.detail}" for e in errors), errors=errors)


def _field(error: Any) -> FieldError:
    """The pointer is into the body; a parameter of the path, the query or the header is named with its place."""
    place, *path = error["loc"]
    text = str(error["msg"]).removeprefix("Value error, ")
    if isinstance(error.get("input"), str | int | float | bool):
        found = repr(error["input"])
        text += f" (found {found if len(found) <= MOST_FOUND_CHARS else found[:MOST_FOUND_CHARS] + '…'})"
    return FieldError.at(path if place == "body" else (place, *path), text)


def _of_http(app: FastAPI, request: Request, error: HTTPException) -> ProblemError:
    headers = dict(error.headers or {})
    detail = str(error.detail)
    if error.status_code == 404:
        detail = f"there is nothing at {request.url.path}; /openapi.json lists what there is"
    elif error.status_code == 405:
        headers["Allow"] = ", ".join(sorted(_methods(app, request.url.path, headers.get("Allow", ""))))
        detail = f"{request.method} is not for {request.url.path}; it takes {headers['Allow']}"
    elif error.status_code == 400:
        detail = "the body cannot be read; send JSON in UTF-8"
    return ProblemError(error.status_code, detail, headers=headers)


def _methods(app: FastAPI, path: str, known: str) -> set[str]:
    """All methods that a path takes: those of the document, or of its first route if it is not in there."""
    found: set[str] = set()
    for template, operations in app.openapi()["paths"].items():
        if re.fullmatch(re.sub(r"\\{[^}]*\\}", "[^/:]+", re.escape(template)), path):
            found |= {method.upper() for method in operations}
    return found or {method.strip() for method in known.split(",")}


class BodyLimit:
    """Refuses a body that is said to be too large unread, and one that turns out to be as soon as it is."""

    def __init__(self, app: ASGIApp, limit_bytes: int) -> None:
        self._app = app
        self._limit_bytes = limit_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        stated = request.headers.get("content-length", "")
        if stated.isdecimal() and int(stated) > self._limit_bytes:
            await answer(request, self._problem())(scope, receive, send)
            return
        read_bytes = 0

        async def counted() -> Message:
            nonlocal read_bytes
            message = await receive()
            read_bytes += len(message.get("body", b""))
            if read_bytes > self._limit_bytes:
                raise HTTPException(413, self._problem().detail)
            return message

        await self._app(scope, counted, send)

    def _problem(self) -> ProblemError:
        return ProblemError(413, f"the body is too large: at most {self._limit_bytes:,} bytes are read")
