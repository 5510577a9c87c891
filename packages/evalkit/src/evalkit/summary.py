"""What `evalkit score` prints when it is done: the scores as a table, for stderr."""

from __future__ import annotations

from manifest.artifact import Opened
from manifest.report import Report
from rich.table import Table

from evalkit.intervals import FEW
from evalkit.tasks.bits_per_byte import DIFFERENCE


def table(report: Opened) -> Table:
    """The scores of a report, and the differences to the report that it was compared with."""
    record = report.manifest
    assert isinstance(record, Report)
    differences = {score.source: score for score in record.scores if score.metric == DIFFERENCE}
    made = Table(box=None, pad_edge=False, header_style="bold")
    made.add_column("source", no_wrap=True)
    for title in ("documents", "bits per byte", "95 % interval", *(["difference", "95 % interval"] if differences else [])):
        made.add_column(title, justify="right")
    for score in record.scores:
        if score.metric == DIFFERENCE:
            continue
        cells = [score.source, f"{score.count:,}", f"{score.value:.3f}", interval(score.low, score.high, score.count)]
        if differences:
            other = differences[score.source]
            cells += [f"{other.value:+.3f}", interval(other.low, other.high, other.count, sign="+")]
        made.add_row(*cells)
    return made


def interval(low: float, high: float, count: int, *, sign: str = "") -> str:
    """`1.20 to 1.31`; marked where too few documents stand behind it."""
    return f"{low:{sign}.3f} to {high:{sign}.3f}" + (" (range)" if count < FEW else "")
