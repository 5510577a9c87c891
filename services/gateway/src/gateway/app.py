"""The application: every route, every error as a problem, nothing loaded from elsewhere."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI, Request, Response

from gateway import problems
from gateway.routes import health, page, traces, work
from gateway.service import Service

DESCRIPTION = """Build datasets and train on them. Builds, runs and reports are asked for with POST, carried out one
after another, and followed through `/events`. Whatever is asked for twice is done once. Errors are RFC 9457 problems
whose `errors` name the wrong fields."""
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'",
}


def create_app(service: Service) -> FastAPI:
    """The app over a running service."""
    app = FastAPI(
        title="Winnow",
        version=version("winnow-gateway"),
        description=DESCRIPTION,
        docs_url=None,  # their pages load scripts from a CDN
        redoc_url=None,
        telemetry={"auto_configure": False},
        generate_unique_id_function=lambda route: route.name,
    )
    app.state.service = service
    problems.install(app)
    app.add_middleware(problems.BodyLimit, limit_bytes=service.settings.max_body_bytes)
    app.middleware("http")(_with_headers)
    for router in (work.builds, work.runs, work.reports, traces.router, health.router, page.router):
        app.include_router(router)
    page.mount_static(app)
    if not service.settings.needs_key:
        _ask_for_no_key(app.openapi())
    return app


def _ask_for_no_key(document: dict[str, Any]) -> None:
    """The document of a service without keys says so."""
    document["components"].pop("securitySchemes")
    for operations in document["paths"].values():
        for operation in operations.values():
            operation.pop("security", None)


async def _with_headers(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    response = await call_next(request)
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    return response
