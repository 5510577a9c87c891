"""The manifest of a report: scores with their intervals, and the checkpoint that they stand on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field

from manifest.record import FileEntry, Manifest, Model


class Score(Model):
    """One number of a report, over `count` `unit`s. [low, high] is its `confidence` interval."""

    task: str
    source: str
    metric: str
    value: float
    low: float
    high: float
    confidence: float = Field(gt=0, lt=1)
    count: int = Field(ge=0)
    unit: str
    higher_is_better: bool


class Report(Manifest):
    """Manifest of kind `report`, version 1. `pages` hold report.html, report.md and the rows."""

    kind: Literal["report"] = "report"
    scores: tuple[Score, ...]
    pages: tuple[FileEntry, ...] = ()
    summary: dict[str, Any] = Field(default_factory=dict)

    def files(self) -> Iterator[FileEntry]:
        return iter(self.pages)
