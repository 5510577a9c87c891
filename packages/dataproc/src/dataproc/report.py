"""What a build prints when it is done: a table of its sources."""

from __future__ import annotations

from collections.abc import Mapping

from rich.table import Table

from dataproc import progress
from manifest.artifact import Opened
from manifest.mixture import Mixture

COLUMNS = (
    ("source", "source"),
    ("documents\nin", "records"),
    ("un-\nreadable", "unreadable"),
    ("short", "short"),
    ("tomb-\nstoned", "tombstoned"),
    ("duplicate\nwithin", "duplicates_within"),
    ("duplicate\nacross", "duplicates_across"),
    ("held\nout", "heldout"),
    ("near\nthem", "near_heldout"),
    ("kept", "kept"),
    ("tokens", "tokens"),
)


def show(item: Opened) -> None:
    """Prints the table of a mixture on stderr; nothing for other artifacts."""
    if isinstance(item.manifest, Mixture):
        progress.console.print(table(item.manifest.summary["sources"]))


def table(sources: Mapping[str, Mapping[str, int]]) -> Table:
    """The retention of every source, and their sum; columns that are seldom needed only where they are."""
    seldom = ("unreadable", "tombstoned", "near_heldout")
    shown = [c for c in COLUMNS if c[1] not in seldom or any(row.get(c[1]) for row in sources.values())]
    made = Table(box=None, pad_edge=False, header_style="bold", footer_style="bold", show_footer=True)
    for title, key in shown:
        total = "total" if key == "source" else f"{sum(row.get(key, 0) for row in sources.values()):,}"
        made.add_column(title, footer=total, justify="left" if key == "source" else "right", vertical="bottom")
    for name, row in sources.items():
        made.add_row(name, *(f"{row.get(key, 0):,}" for _, key in shown[1:]))
    return made
