"""A data card → its page, whole in itself, and its Markdown. Values are prepared here, words are in templates/."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from dataproc.card.record import Card, Retention

TEMPLATES = Path(__file__).parent / "templates"
UNITS = ("B", "kB", "MB", "GB", "TB", "PB")
COLOURS = ("#4c78a8", "#f58518", "#54a24b", "#b279a2", "#e45756", "#72b7b2", "#9d755d", "#eeca3b", "#ff9da6", "#79706e")


def pages(card: Card) -> dict[str, str]:
    """File name → text."""
    return {name: _render(name, card) for name in ("index.html", "README.md")}


def _render(name: str, card: Card) -> str:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=name.endswith(".html"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"count": _count, "size": _size, "percent": percent, "epochs": _epochs}
    environment.filters |= {"cell": _cell, "tint": _tint}
    seldom = [
        column
        for column in ("unreadable", "tombstoned", "contaminated")
        if any(getattr(source.retention, column) for source in card.sources)
    ]
    most = max((bits for row in card.divergences.values() for bits in row.values()), default=0.0)
    total = total_of([source.retention for source in card.sources])
    template = environment.get_template(f"{name}.j2")
    keys = keys_of(card)
    colours = dict(zip(dict.fromkeys(keys.values()), cycle(COLOURS)))
    return template.render(card=card, total=total, seldom=seldom, keys=keys, colours=colours, most_bits=most or 1.0)


def keys_of(card: Card) -> dict[str, str]:
    """What each view is known by in the bars: itself, or its source where there are more views than colours."""
    drawn = {draw.view: draw.stream for phase in card.phases for draw in phase.draws}
    sources = {stream.name: stream.source for stream in card.streams}
    return {view: view if len(drawn) <= len(COLOURS) else sources[stream] for view, stream in drawn.items()}


def total_of(rows: Sequence[Retention]) -> Retention:
    """The sum of all sources."""
    return Retention(**{field: sum(getattr(row, field) for row in rows) for field in Retention.model_fields})


def _epochs(number: float) -> str:
    return f"{number:,.2f}"


def _count(number: int) -> str:
    return f"{number:,}"


def _size(number: float) -> str:
    """Bytes or tokens in powers of a thousand, three digits."""
    index = 0
    while number >= 999.5 and index < len(UNITS) - 1:
        number, index = number / 1000, index + 1
    return f"{number:.3g} {UNITS[index]}"


def percent(share: float) -> str:
    """A share with two decimals; what is not quite nothing or all does not look like it."""
    if 0 < share < 0.00005:
        return "< 0.01 %"
    return f"{100 * share:.2f} %"


def _cell(text: str) -> str:
    """Text in a cell of a Markdown table, or in a list."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;").replace("`", "'")


def _tint(share: float) -> str:
    """The background of a cell: the root of the share, so that a little can be told from none."""
    return f"color-mix(in srgb, var(--accent) {round(70 * min(1.0, share) ** 0.5)}%, transparent)"
