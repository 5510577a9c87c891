"""A report to compare with → its bits for the same documents, in the same order."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np
import pyarrow as pa

from dataproc.documents import rows_of
from evalkit.intervals import Floats
from manifest.artifact import Opened, open_artifact
from manifest.errors import WrongArtifact
from manifest.report import Report, Score

ROWS_FILE = "documents"


def open_report(uri: str | Path) -> Opened:
    """A report with rows per document. Raises ArtifactError if there is none."""
    opened = open_artifact(uri, kind="report")
    if not _row_files(opened):
        raise WrongArtifact(f"{opened.uri} has no rows per document ({ROWS_FILE}-*.parquet); score it again")
    return opened


def differences_of(report: Report) -> list[Score]:
    """A report's scores less those of the report that it was compared with, in the same order; none if with none."""
    return [Score.model_validate(score) for score in report.summary["differences"]]


def require_same_documents(report: Opened, chosen: Collection[str]) -> None:
    """Raises WrongArtifact unless the report scored exactly these documents: before any work is done."""
    scored = set(_rows(report)["id"].to_pylist())
    _require_all(report, scored=len(scored), chosen=len(chosen), common=len(scored.intersection(chosen)))


def bits_of(report: Opened, found: pa.Table) -> Floats:
    """(N,): the bits that the report's model needed for the documents of `found`.

    Raises WrongArtifact unless the report scored exactly these documents, byte for byte as long.
    """
    rows = {row["id"]: row for row in _rows(report).to_pylist()}
    ours = dict(zip(found["id"].to_pylist(), found["bytes"].to_pylist(), strict=True))
    common = sum(1 for i, size in ours.items() if i in rows and rows[i]["bytes"] == size)
    _require_all(report, scored=len(rows), chosen=len(ours), common=common)
    return np.array([rows[i]["bits"] for i in ours])


def _require_all(report: Opened, *, scored: int, chosen: int, common: int) -> None:
    if common == scored == chosen:
        return
    raise WrongArtifact(
        f"{report.uri} scored {scored} documents; of the {chosen} that this recipe and checkpoint choose, {common} are "
        "among them. A difference is only fair over the same documents: score both checkpoints on one held-out set, "
        "with one `limit`"
    )


def _rows(report: Opened) -> pa.Table:
    return pa.concat_tables([rows_of(file) for file in _row_files(report)])


def _row_files(report: Opened) -> list[Path]:
    assert isinstance(report.manifest, Report)
    names = sorted(page.path for page in report.manifest.pages)
    return [report.directory / name for name in names if name.startswith(f"{ROWS_FILE}-") and name.endswith(".parquet")]
