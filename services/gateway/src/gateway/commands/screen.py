"""Results on stdout, everything else on stderr; and nothing that the service says moves the cursor."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel
from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

from gateway.failures import printable
from gateway.messages import Entry
from manifest.progress import Progress, span

GAP = "  "
NARROWEST = 8
DAY_S = 86400

errors = Console(stderr=True, highlight=False, soft_wrap=True)


def say(line: str) -> None:
    """One line on stderr."""
    errors.print(Text(printable(line)))


def result(line: str) -> None:
    """One line on stdout, at once."""
    print(printable(line), flush=True)


def print_json(value: BaseModel | Sequence[BaseModel] | dict[str, Any], *, indent: int | None = 2) -> None:
    """A message as JSON in ASCII, so that nothing in it is more than text to a terminal."""
    print(json.dumps(_plain(value), indent=indent), flush=True)


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    return value if isinstance(value, dict) else [_plain(part) for part in value]


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, may_shrink: Iterable[str] = ()) -> None:
    """A table on stdout. On a terminal it is made to fit by cutting what is in the columns that may shrink."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    print("\n".join(table_lines(columns, list(rows), width=width, may_shrink=may_shrink)), flush=True)


def table_lines(
    columns: Sequence[str], rows: Sequence[Sequence[str]], *, width: int | None, may_shrink: Iterable[str]
) -> list[str]:
    """A table as lines of at most `width` cells, if the columns that may shrink allow it."""
    cells = [list(columns), *([" ".join(printable(cell).split()) for cell in row] for row in rows)]
    widths = [max(map(cell_len, column)) for column in zip(*cells, strict=True)]
    shrinking = [columns.index(name) for name in may_shrink]
    while width is not None and sum(widths) + len(GAP) * (len(widths) - 1) > width:
        widest = max(shrinking, key=lambda number: widths[number], default=None)
        if widest is None or widths[widest] <= NARROWEST:
            break
        widths[widest] -= 1
    return [GAP.join(map(_fitted, row, widths)).rstrip() for row in cells]


def _fitted(text: str, width: int) -> str:
    return set_cell_size(text, width) if cell_len(text) <= width else set_cell_size(text, width - 1) + "…"


def progress_line(progress: Progress | None) -> str:
    """documents 45 %, 12 min left."""
    if progress is None:
        return ""
    share = f" {100 * progress.done // progress.total} %" if progress.total else ""
    return f"{progress.stage}{share}{left(progress)}"


def left(progress: Progress) -> str:
    return "" if progress.left_s is None or progress.done >= progress.total else f", {span(progress.left_s)} left"


def age(since: datetime) -> str:
    """How long ago: 45 s, 12 min, 3.5 h, 4 d."""
    seconds = max(0.0, (datetime.now(UTC) - since).total_seconds())
    return span(seconds) if seconds < 2 * DAY_S else f"{seconds / DAY_S:.0f} d"


def count(number: int) -> str:
    """1234567 → 1.23M."""
    for factor, unit in ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**3, "k")):
        if number >= factor:
            return f"{number / factor:.3g}{unit}"
    return str(number)


def state_of(entry: Entry) -> str:
    return "cancelling" if entry.cancel_requested and entry.ended is None else entry.state
