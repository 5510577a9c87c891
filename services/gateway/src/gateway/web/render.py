"""Templates → responses. Everything is escaped, and no script or style stands in a page: the policy forbids it.

page("overview.html", …)                 a whole page
fragment(request, "_now.html", …)        what HTMX polls; 304 where the browser has it already
"""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from fastapi import Request, Response
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from manifest.progress import span

HERE = Path(__file__).parent
STATIC = HERE / "static"
HEADERS = {"Cache-Control": "private, no-cache", "Vary": "Cookie"}

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]")
"""Colours of a terminal, control characters, and what would turn the direction of text around."""


def page(template: str, *, status: int = 200, **context: Any) -> HTMLResponse:
    """What is rendered each time."""
    return HTMLResponse(environment().get_template(template).render(context), status, HEADERS)


def fragment(request: Request, template: str, **context: Any) -> Response:
    """A part of a page, with the digest of its text as its ETag."""
    body = environment().get_template(template).render(context).encode("utf-8", "replace")
    etag = f'"{hashlib.sha256(body).hexdigest()[:24]}"'
    headers = HEADERS | {"ETag": etag}
    known = request.headers.get("if-none-match", "").replace("W/", "")
    if etag in (tag.strip() for tag in known.split(",")):
        return Response(status_code=304, headers=headers)
    return HTMLResponse(body, headers=headers)


@cache
def environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "count": count,
        "size": size,
        "span": span,
        "ago": ago,
        "clock": clock,
        "yaml": as_yaml,
        "plain": plain,
        "seconds": seconds,
    }
    made.globals |= {"asset": asset}
    return made


@cache
def asset(name: str) -> str:
    """The address of a static file. It changes with the file, so that browsers may keep what they have."""
    return f"/static/{name}?v={hashlib.sha256((STATIC / name).read_bytes()).hexdigest()[:12]}"


def count(value: int) -> str:
    return f"{value:,}"


def size(value: float) -> str:
    """4,300,000 → 4.3 M; what is below a hundred thousand is written out."""
    for unit, scale in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= max(scale, 1e5):
            return f"{value / scale:.3g} {unit}" if value < 999.5 * scale else f"{value / scale:,.0f} {unit}"
    return f"{value:,.0f}"


def clock(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def ago(at: datetime, now: datetime) -> str:
    """How long ago, so coarsely that a page seldom changes for it."""
    passed_s = seconds(now, at)
    if passed_s < 60:
        return "just now"
    if passed_s < 3600:
        return f"{passed_s / 60:.0f} min ago"
    if passed_s < 86400:
        return f"{passed_s / 3600:.0f} h ago"
    return f"{passed_s / 86400:.0f} d ago" if passed_s < 14 * 86400 else at.astimezone(UTC).strftime("%Y-%m-%d")


def seconds(end: datetime, start: datetime) -> float:
    """From start to end; clocks that disagree make no negative time."""
    return max(0.0, (end.astimezone(UTC) - start.astimezone(UTC)).total_seconds())


def as_yaml(value: Any) -> str:
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=100)


def plain(text: str) -> str:
    """Text of a log as a page can show it."""
    return ESCAPES.sub("", text)
