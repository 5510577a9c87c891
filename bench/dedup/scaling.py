"""How Winnow's cost grows: the same recipe over N/8, N/4, N/2 and N documents, part by part and as one command.

Each part is a command of its own (`--until signatures`, then `clusters`, …), so its CPU time holds the start of a
process; what a command costs that finds everything made is measured too, and taken off the parts.
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

STEPS = (8, 4, 2, 1)
PARTS = ("signatures", "clusters", "ledger", "deduped")


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
                "whole_cpu_s": median(run["whole"].cpu_s for run in runs),
                "whole_wall_s": median(run["whole"].wall_s for run in runs),
                "start_cpu_s": median(run["start"].cpu_s for run in runs),
                "parts_cpu_s": {part: median(run[part].cpu_s - run["start"].cpu_s for run in runs) for part in PARTS},
                "peak_process_mb": max(run["whole"].peak_process_mb for run in runs),
            }
        )
    return rows


def _run(home: Path, corpus: Corpus, number: int, of: int) -> dict[str, Measured]:
    """One round: the parts, a command that finds all made, and the whole in one command."""
    print(f"  scaling, {corpus.name}, run {number + 1} of {of} ...", file=sys.stderr, flush=True)
    system = SYSTEMS[0]
    work = home / "scaling"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    documents = system.documents(home, corpus)
    linked_copy(documents, work / "parts")
    linked_copy(documents, work / "whole")
    found: dict[str, Measured] = {}
    for part in (*PARTS, "start"):
        until = "deduped" if part == "start" else part
        found[part] = _measured(system.build(corpus, work / "parts", until), work)
    found["whole"] = _measured(system.build(corpus, work / "whole", "deduped"), work)
    shutil.rmtree(work)
    return found


def _measured(command: list[str], work: Path) -> Measured:
    measured = measured_run(command, work, work)
    if measured.exit_code:
        raise RuntimeError(
            f"`{' '.join(command)}` ended with {measured.exit_code}: {(work / 'log').read_text()[-2000:]}"
        )
    return measured
