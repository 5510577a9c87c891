"""What `evalkit score` prints when it is done, for stderr: the scores as a table, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Iterator

from rich.table import Table

from evalkit.compare import differences_of
from evalkit.intervals import FEW
from manifest.artifact import Opened
from manifest.report import Report


def warnings(report: Opened) -> Iterator[str]:
    """What keeps the scores from being those of held-out text, in a line each; none in most cases."""
    record = report.manifest
    assert isinstance(record, Report)
    known = record.summary["trained_on"]
    if known["documents"]:
        counts = ", ".join(f"{count:,} of {source}" for source, count in known["documents"].items())
        yield f"not held out from this model: {counts} are in a mixture that it comes from; their bits are too low"
    if known["lost"]:
        yield f"whether {', '.join(known['lost'])} held these documents is not known: it is gone, or has changed"


def table(report: Opened) -> Table:
    """The scores of a report, and the differences to the report that it was compared with.

    † marks a source of so few documents that the range of their values stands in place of an interval.
    """
    record = report.manifest
    assert isinstance(record, Report)
    differences = {score.source: score for score in differences_of(record)}
    made = Table(box=None, pad_edge=False, header_style="bold")
    made.add_column("source", no_wrap=True)
    titles = ["documents", "bits\nper byte", "95 %\ninterval"]
    for title in [*titles, "difference", "paired 95 %\ninterval"] if differences else titles:
        made.add_column(title, justify="right", no_wrap=True, vertical="bottom")
    for score in record.scores:
        mark = " †" if score.count < FEW else ""
        cells = [score.source, f"{score.count:,}{mark}", f"{score.value:.3f}", f"{score.low:.3f} to {score.high:.3f}"]
        if differences:
            other = differences[score.source]
            cells += [f"{other.value:+.3f}", f"{other.low:+.3f} to {other.high:+.3f}"]
        made.add_row(*cells)
    return made
