"""A spike → what its step read: `spikes/<step>.tsv` in the run's directory.

A row per document of each window, as in `trainer audit`, before which stands the window's own loss, in nats per target
(empty where it has none); the windows with the highest come first.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from manifest.store import write_atomic
from trainer.audit import audit
from trainer.run import read_run

TABLES = "spikes"
NAMED = 3
"""Windows that an event names."""


def table_path(step: int) -> str:
    """Where the table of a step lies in the run's directory."""
    return f"{TABLES}/{step:08d}.tsv"


def write_table(directory: Path, step: int, losses: Sequence[float | None]) -> dict[str, Any]:
    """Writes the table of a step. losses: of its windows, in order. Returns what an event says of it:

    table: where it lies; documents: how many the step read; worst: window, loss and documents of the worst windows.
    """
    header, *lines = audit(directory, step)
    first = read_run(directory).timeline.step(step).first
    documents: defaultdict[int, list[str]] = defaultdict(list)
    rows: defaultdict[int, list[str]] = defaultdict(list)
    for line in lines:
        window = int(line.split("\t", 1)[0]) - first
        rows[window].append(line)
        documents[window].append(line.rsplit("\t", 1)[1])
    order = sorted(rows, key=lambda window: (-_known(losses[window]), window))
    said = [f"{'' if losses[w] is None else f'{losses[w]:.4f}'}\t{line}" for w in order for line in rows[w]]
    file = directory / table_path(step)
    file.parent.mkdir(exist_ok=True)
    write_atomic(file, ("\n".join([f"loss\t{header}", *said]) + "\n").encode())
    return {
        "table": table_path(step),
        "documents": len({document for named in documents.values() for document in named}),
        "worst": [{"window": w + first, "loss": losses[w], "documents": documents[w]} for w in order[:NAMED]],
    }


def _known(loss: float | None) -> float:
    return float("-inf") if loss is None else loss
