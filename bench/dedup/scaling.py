"""How Winnow's cost grows, and how well `build --dry-run` foresees it.

The same recipe over N/8, N/4, N/2 and N documents, from raw files on, part by part; and from documents on as one
command. Each part is a command of its own (`--until documents`, then `signatures`, …), so its CPU time holds the start
of a process; what a command costs that finds everything made is measured too, and taken off the parts.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from bench.dedup.corpora import Corpus
from bench.dedup.measure import Measured
from bench.dedup.runs import measured_run
from bench.dedup.winnow import SYSTEMS, linked_copy
from dataproc import cost
from dataproc.estimate import estimate
from dataproc.recipe import read
from dataproc.workers import MEMORY_BYTES

STEPS = (8, 4, 2, 1)
PARTS = ("documents", "signatures", "clusters", "ledger", "deduped")
SERIAL, FROM_RAW = SYSTEMS[0], SYSTEMS[2]


def scaling(home: Path, made: Callable[[int], Corpus], documents: int, repeats: int) -> list[dict[str, Any]]:
    """The figures of each size: medians of CPU seconds, the peak of a process, and which corpus it was."""
    rows: list[dict[str, Any]] = []
    for step in STEPS:
        corpus = made(documents // step)
        runs = [_run(home, corpus, number, repeats) for number in range(repeats)]
        rows.append(
            {
                "documents": corpus.facts["documents"],
                "text_bytes": corpus.facts["text_bytes"],
                "predicted": _predicted(corpus),
                "artifacts_bytes": runs[0]["artifacts_bytes"],
                "whole_cpu_s": median(run["whole"].cpu_s for run in runs),
                "whole_wall_s": median(run["whole"].wall_s for run in runs),
                "start_cpu_s": median(run["start"].cpu_s for run in runs),
                "parts_cpu_s": {part: median(run[part].cpu_s - run["start"].cpu_s for run in runs) for part in PARTS},
                "peak_process_mb": max(run["whole"].peak_process_mb for run in runs),
            }
        )
    return rows


def _predicted(corpus: Corpus) -> dict[str, Any]:
    """What a dry run says of this corpus; the share of documents that are alike is the model's own assumption."""
    recipe = read(str(FROM_RAW.recipe))
    found = estimate(recipe, str(corpus.path / "raw")).sources
    rates = cost.measure([text for source in found.values() for text in source.texts], recipe)
    told = cost.predict(found, recipe, rates, memory_bytes=MEMORY_BYTES)
    return {"parts_cpu_s": dict(told.seconds), "artifacts_bytes": told.artifacts, "worker_bytes": told.worker}


def _run(home: Path, corpus: Corpus, number: int, of: int) -> dict[str, Any]:
    """One round: the parts, a command that finds all made, and the whole in one command from documents on."""
    print(f"  scaling, {corpus.name}, run {number + 1} of {of} ...", file=sys.stderr, flush=True)
    work = home / "scaling"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    linked_copy(SERIAL.documents(home, corpus), work / "whole")
    found: dict[str, Any] = {}
    for part in (*PARTS, "start"):
        until = "deduped" if part == "start" else part
        found[part] = _measured(FROM_RAW.build(corpus, work / "parts", until), work)
    found["whole"] = _measured(SERIAL.build(corpus, work / "whole", "deduped"), work)
    found["artifacts_bytes"] = sum(path.stat().st_size for path in (work / "parts").rglob("*") if path.is_file())
    shutil.rmtree(work)
    return found


def _measured(command: list[str], work: Path) -> Measured:
    measured = measured_run(command, work, work)
    if measured.exit_code:
        raise RuntimeError(
            f"`{' '.join(command)}` ended with {measured.exit_code}: {(work / 'log').read_text()[-2000:]}"
        )
    return measured
