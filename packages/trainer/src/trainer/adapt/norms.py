"""How long the rows of old and new tokens are, before training and after.

    runs/<run>/checkpoints/{00000000, …}, rows/… ─► per table, checkpoint and kind of row: mean, quantiles, histogram

New rows that are longer or shorter than old ones shift every logit. The card of the released Arabic models gives "the
observed higher norms of the new Arabic embeddings" as the reason for a first phase that trains embeddings alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from safetensors import safe_open

from manifest.artifact import Opened, open_artifact
from manifest.checkpoint import Checkpoint
from manifest.errors import InputError, NotAnArtifact
from manifest.record import Model
from manifest.store import LocalStore
from trainer.adapt.rows import GrownVocabulary, open_grown
from trainer.model.parameters import TABLES
from trainer.run import Run, checkpoints, read_run

BINS = 40
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)

Kind = Literal["old", "new"]
Norms = npt.NDArray[np.float64]


class Distribution(Model):
    """The Euclidean norms of some rows. quantiles: at 5, 25, 50, 75 and 95 %. histogram: rows between two edges."""

    table: str
    step: int
    rows: Kind
    count: int
    mean: float
    std: float
    quantiles: tuple[float, ...]
    histogram: tuple[int, ...]


class NormReport(Model):
    """vocabulary.json of the command. edges: of a table's histograms, the same for all of them."""

    run: str
    new_tokens: int
    replaced: int
    steps: tuple[int, ...]
    edges: dict[str, tuple[float, ...]]
    found: tuple[Distribution, ...]

    def of(self, table: str, step: int) -> list[Distribution]:
        """Old rows, then new ones."""
        return [one for one in self.found if (one.table, one.step) == (table, step)]


def measure(directory: Path, steps: Sequence[int] = ()) -> NormReport:
    """The norms of a run's rows at step 0 and at `steps`, by default the newest checkpoint's.

    Raises NotAnArtifact if there is no such run or checkpoint, InputError if the run has no new tokens.
    """
    run = read_run(directory)
    if run.rows is None:
        raise InputError(
            f"run {run.name} has no new tokens: it started from "
            f"{'nothing' if run.base is None else 'a model with the tokenizer of its mixture'}"
        )
    store = LocalStore(directory.resolve().parent.parent)
    grown = open_grown(store.where(run.path), run.rows)
    chosen = _chosen(store, run, steps)
    norms = {
        (table, step): _split(values, grown)
        for step, opened in chosen.items()
        for table, values in _norms(opened).items()
    }
    tables = [table for table in TABLES if any(name == table for name, _ in norms)]
    edges = {table: _edges([parts for (name, _), parts in norms.items() if name == table]) for table in tables}
    return NormReport(
        run=run.name,
        new_tokens=len(grown.rows),
        replaced=len(grown.replaced),
        steps=tuple(chosen),
        edges={table: tuple(found.tolist()) for table, found in edges.items()},
        found=tuple(
            _distribution(table, step, kind, values, edges[table])
            for (table, step), parts in norms.items()
            for kind, values in parts.items()
        ),
    )


def _chosen(store: LocalStore, run: Run, steps: Sequence[int]) -> dict[int, Opened]:
    """Checkpoints by step: the first, and those asked for."""
    there = {record.step for record in checkpoints(store, run)}
    wanted = sorted({0, *(steps or {max(there, default=0)})})
    missing = [step for step in wanted if step not in there]
    if missing:
        has = ", ".join(map(str, sorted(there))) or "none"
        raise NotAnArtifact(f"run {run.name} has no checkpoint of step {missing[0]}; it has {has}")
    return {step: open_artifact(store.where(run.checkpoint_path(step)), kind="checkpoint") for step in wanted}


def _norms(opened: Opened) -> dict[str, Norms]:
    """Of every row of each table."""
    record = opened.manifest
    assert isinstance(record, Checkpoint)
    found: dict[str, Norms] = {}
    for file in record.weights:
        with safe_open(opened.directory / file.path, framework="np") as tensors:
            for name in set(file.parameters) & set(TABLES):
                found[name] = np.linalg.norm(tensors.get_tensor(name).astype(np.float64), axis=1)
    return found


def _split(values: Norms, grown: GrownVocabulary) -> dict[Kind, Norms]:
    new = np.array([row.id for row in grown.rows], dtype=np.int64)
    old = np.setdiff1d(np.arange(min(grown.base_size, len(values))), new)
    return {"old": values[old], "new": values[new]}


def _edges(parts: Sequence[dict[Kind, Norms]]) -> Norms:
    highest = max((float(values.max()) for part in parts for values in part.values() if values.size), default=1.0)
    edges: Norms = np.linspace(0.0, highest * (1 + 1e-9) or 1.0, BINS + 1)
    return edges


def _distribution(table: str, step: int, kind: Kind, values: Norms, edges: Norms) -> Distribution:
    return Distribution(
        table=table,
        step=step,
        rows=kind,
        count=values.size,
        mean=float(values.mean()) if values.size else 0.0,
        std=float(values.std()) if values.size else 0.0,
        quantiles=tuple(np.quantile(values, QUANTILES).tolist()) if values.size else (),
        histogram=tuple(np.histogram(values, edges)[0].tolist()),
    )
