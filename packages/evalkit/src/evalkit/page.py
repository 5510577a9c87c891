"""A report → its two pages: report.html, whole in itself, and report.md. Nothing in them says where or when.

Values are prepared here, words and layout are in templates/.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from dataproc.report import COLUMNS
from evalkit.chart import chart
from evalkit.checkpoint import Subject
from evalkit.compare import differences_of
from evalkit.figures import phases, uniform_bits_per_byte
from evalkit.intervals import FEW, RESAMPLES
from evalkit.tasks.bits_per_byte import ALL
from evalkit.tree import branches
from manifest.artifact import Opened
from manifest.checkpoint import Checkpoint
from manifest.lineage import lineage
from manifest.report import Report, Score

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Line:
    """A row of the scores: a source with its size, its score and its difference to the compared one."""

    score: Score
    bytes: int
    tokens: int
    difference: Score | None

    @property
    def few(self) -> bool:
        return self.score.count < FEW

    @property
    def compared(self) -> float | None:
        return None if self.difference is None else self.score.value - self.difference.value

    @property
    def verdict(self) -> str:
        """What the interval of the difference says."""
        if self.difference is None or self.few:
            return ""
        if self.difference.high < 0:
            return "better"
        return "worse" if self.difference.low > 0 else "no clear difference"


def pages(report: Report, subject: Subject, compared: Opened | None) -> dict[str, str]:
    """File name → text. report: as it will be published, its pages aside."""
    context = _context(report, subject, compared)
    found = {}
    for name, escape in (("report.html", True), ("report.md", False)):
        environment = Environment(
            loader=FileSystemLoader(TEMPLATES),
            autoescape=escape,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
        )
        environment.filters |= {"count": _count, "size": _size, "percent": _percent, "signed": _signed}
        found[name] = environment.get_template(f"{name}.j2").render(context)
    return found


def _context(report: Report, subject: Subject, compared: Opened | None) -> dict[str, Any]:
    lines = _lines(report)
    plotted = lines if len(lines) > 2 else lines[:1]  # with one source, both are the same
    assert isinstance(subject.record, Checkpoint)
    return {
        "report": report,
        "subject": report.summary["subject"],
        "total": lines[0],
        "lines": plotted,
        "chart": chart([line.score for line in plotted], [line.compared for line in plotted]),
        "compared": _compared(compared),
        "uniform": uniform_bits_per_byte(report.summary),
        "phases": phases(subject.record),
        "trained_on": report.summary["trained_on"],
        "mixture": subject.mixture_record,
        "retention": _retention(subject.mixture_record.summary.get("sources", {})),
        "trees": branches(lineage(item.uri) for item in (subject.checkpoint, compared) if item is not None),
        "resamples": RESAMPLES,
        "few": FEW,
    }


def _lines(report: Report) -> list[Line]:
    sizes = report.summary["sources"]
    differences = {score.source: score for score in differences_of(report)}
    return [
        Line(
            score,
            _sum(sizes, score.source, "bytes"),
            _sum(sizes, score.source, "tokens"),
            differences.get(score.source),
        )
        for score in report.scores
    ]


def _sum(sizes: Mapping[str, Mapping[str, int]], source: str, key: str) -> int:
    return sum(size[key] for name, size in sizes.items() if source in (name, ALL))


def _compared(compared: Opened | None) -> dict[str, Any] | None:
    """The model of the report that is compared with."""
    if compared is None:
        return None
    assert isinstance(compared.manifest, Report)
    return {"id": compared.manifest.id, **compared.manifest.summary["subject"]}


def _retention(sources: Mapping[str, Mapping[str, int]]) -> dict[str, Any]:
    """The mixture's table: titles, rows of (source, counts), totals. No rows if the mixture does not have it."""
    shown = [(title, key) for title, key in COLUMNS[1:] if all(key in row for row in sources.values())]
    shown = [c for c in shown if c[1] != "unreadable" or any(row["unreadable"] for row in sources.values())]
    rows = [(name, [row[key] for _, key in shown]) for name, row in sources.items()]
    totals = [sum(counts) for counts in zip(*(counts for _, counts in rows), strict=True)]
    return {"titles": [" ".join(title.split()) for title, _ in shown], "rows": rows, "totals": totals}


def _count(value: int) -> str:
    return f"{value:,}"


def _size(value: float) -> str:
    """4,300,000 → 4.3 M"""
    for unit, scale in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= scale:
            return f"{value / scale:.3g} {unit}" if value < 999.5 * scale else f"{value / scale:,.0f} {unit}"
    return f"{value:,.0f}"


def _percent(value: float) -> str:
    return f"{100 * value:.3g} %"


def _signed(value: float) -> str:
    """With a true minus sign, and three decimals."""
    return f"{value:+.3f}".replace("-", "−")
