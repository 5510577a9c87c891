"""Outcomes of arms → cells: the arms that differ in their seed alone, with bits per byte per source.

Two things make a figure unsure, and they are told apart: which documents were held out (low, high: the percentile
bootstrap over documents of the mean over seeds, evalkit/intervals.py), and the seed (sd: over the seeds' values, with
n − 1). Differences are paired: both cells' bits of the same documents are drawn together.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, stdev
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from evalkit.compare import ROWS_FILE
from evalkit.intervals import FEW, RESAMPLES, Floats, middle, resampled_sums
from gateway.client import Client
from gateway.messages import Report, Run
from gateway.study.arms import Outcome
from gateway.study.grid import StudyRecipe
from manifest.errors import InputError
from manifest.report import Report as ReportManifest

ALL = "all"
SEED = 0

Documents = Mapping[str, tuple[str, float, float]]
"""id → source, bytes, bits."""


@dataclass(frozen=True)
class Figure:
    """Bits per byte: the mean over seeds with its interval over documents, and the spread over seeds, if several.

    low, high: None where a source has too few documents for an interval.
    """

    value: float
    low: float | None
    high: float | None
    sd: float | None
    documents: int


@dataclass(frozen=True)
class Origin:
    """What a figure of a seed was made from: paths in the service's store, from which lineage goes on."""

    seed: int
    checkpoint: str
    report: str


@dataclass(frozen=True)
class Cell:
    """Arms that differ in their seed alone. line: labels but the rate's. figures: by source; empty if none ended.
    baseline: the documents as the model scored them that the arms started from; empty unless the study wants that.
    origins: of each of `seeds`; baseline_report: of the baseline.
    """

    labels: Mapping[str, str]
    line: str
    rate: float | None
    seeds: tuple[int, ...]
    tokens: int
    figures: Mapping[str, Figure]
    documents: Documents = field(repr=False)
    failures: tuple[str, ...] = ()
    best: bool = False
    baseline: Documents = field(default_factory=dict, repr=False)
    origins: tuple[Origin, ...] = ()
    baseline_report: str | None = None


def read_documents(client: Client, report_id: str) -> Documents:
    """The rows of a report, over HTTP."""
    manifest = ReportManifest.model_validate_json(client.report_file(report_id, "manifest.json"))
    names = [page.path for page in manifest.pages if page.path.startswith(f"{ROWS_FILE}-")]
    table = pa.concat_tables([pq.read_table(io.BytesIO(client.report_file(report_id, name))) for name in sorted(names)])
    return {row["id"]: (row["source"], float(row["bytes"]), float(row["bits"])) for row in table.to_pylist()}


def cells_of(recipe: StudyRecipe, outcomes: Sequence[Outcome], documents: Mapping[str, Documents]) -> list[Cell]:
    """Cells in the order of the arms. documents: report's id → its rows. In each line the lowest is `best`.

    Raises InputError if that is judged by a source that is not there.
    """
    grouped: dict[tuple[str, ...], list[Outcome]] = {}
    for outcome in outcomes:
        grouped.setdefault(tuple(outcome.arm.labels.values()), []).append(outcome)
    cells = [_cell(recipe, group, documents) for group in grouped.values()]
    ended = [cell for cell in cells if cell.figures]
    if recipe.best_by is not None and ended and recipe.best_by not in ended[0].figures:
        known = ", ".join(sorted(set(ended[0].figures) - {ALL}))
        raise InputError(f"study {recipe.name}: best_by: no held-out text of a source {recipe.best_by!r}; of {known}")

    def judged(cell: Cell) -> float:
        return cell.figures[recipe.best_by or ALL].value

    best = {line: min((c for c in ended if c.line == line), key=judged) for line in {c.line for c in ended}}
    return [_marked(cell, best.get(cell.line) is cell) for cell in cells]


def _marked(cell: Cell, best: bool) -> Cell:
    return Cell(**{**vars(cell), "best": best})


def _cell(recipe: StudyRecipe, group: Sequence[Outcome], documents: Mapping[str, Documents]) -> Cell:
    labels = group[0].arm.labels
    scored = [outcome for outcome in group if outcome.report is not None]
    found = [documents[outcome.report.id] for outcome in scored if outcome.report is not None]
    rate = None
    if recipe.rate is not None:
        axis = recipe.axes[recipe.rate]
        rate = float(dict(zip(axis.labelled(), axis.values, strict=True))[labels[recipe.rate]])
    return Cell(
        labels=labels,
        line=", ".join(f"{axis} {label}" for axis, label in labels.items() if axis != recipe.rate),
        rate=rate,
        seeds=tuple(outcome.arm.seed for outcome in scored),
        tokens=group[0].tokens,
        figures=_figures(found) if found else {},
        documents=_mean(found) if found else {},
        failures=tuple(f"{o.arm.name}: {o.failure}" for o in group if o.failure is not None),
        baseline={} if group[0].baseline is None else documents[group[0].baseline.id],
        origins=tuple(Origin(o.arm.seed, _path(o.run), _path(o.report)) for o in scored),
        baseline_report=None if group[0].baseline is None else _path(group[0].baseline),
    )


def _path(entry: Run | Report | None) -> str:
    """Of what an entry that succeeded has made."""
    assert entry is not None
    assert entry.result is not None
    return entry.result.path


def _mean(found: Sequence[Documents]) -> Documents:
    """Bits as the mean over seeds. The held-out documents do not depend on the seed of a run."""
    return {i: (source, size, fmean(each[i][2] for each in found)) for i, (source, size, _) in found[0].items()}


def _figures(found: Sequence[Documents]) -> dict[str, Figure]:
    mean = _mean(found)
    sources = [ALL, *sorted({source for source, _, _ in mean.values()})]
    return {source: _figure(mean, found, source) for source in sources}


def _figure(mean: Documents, found: Sequence[Documents], source: str) -> Figure:
    values_ND = _columns(mean, source)
    by_seed = [float(np.divide(*_columns(each, source).sum(axis=0))) for each in found]
    low, high = _interval(mean, source, lambda sums: sums[..., 0] / sums[..., 1])
    return Figure(fmean(by_seed), low, high, stdev(by_seed) if len(by_seed) > 1 else None, len(values_ND))


def _columns(documents: Documents, source: str) -> Floats:
    """(N, 2): bits and bytes of a source's documents."""
    return np.array([(bits, size) for of, size, bits in documents.values() if source in (ALL, of)])


def _interval(documents: Documents, source: str, ratio: Any, other: Documents | None = None) -> tuple[Any, Any]:
    """Of a ratio of sums over (bits, bytes, the other's bits); each source is resampled by itself, so shares stay."""
    sources = sorted({of for of, _, _ in documents.values()}) if source == ALL else [source]
    sums, count = np.zeros((RESAMPLES, 3)), 0
    for name in sources:
        ids = [i for i, (of, _, _) in documents.items() if of == name]
        rows = [(documents[i][2], documents[i][1], other[i][2] if other else 0.0) for i in ids]
        sums = sums + resampled_sums(np.array(rows), seed=SEED)
        count += len(ids)
    return middle(ratio(sums)) if count >= FEW else (None, None)


def baseline_value(cell: Cell, source: str) -> float | None:
    """Bits per byte of what the cell's arms started from; None if that was not scored."""
    if not cell.baseline:
        return None
    return float(np.divide(*_columns(cell.baseline, source).sum(axis=0)))


def difference(cell: Cell, other: Documents, source: str) -> Figure | None:
    """The cell − another model in bits per byte, paired; None unless both scored the same documents."""
    ours = cell.documents
    same = {i: row[:2] for i, row in ours.items()} == {i: row[:2] for i, row in other.items()}
    if not same or source not in cell.figures:
        return None
    low, high = _interval(ours, source, lambda s: (s[..., 0] - s[..., 2]) / s[..., 1], other)
    (bits, size), (others, _) = _columns(ours, source).sum(axis=0), _columns(other, source).sum(axis=0)
    return Figure(float((bits - others) / size), low, high, None, cell.figures[source].documents)
