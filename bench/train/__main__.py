"""`python -m bench.train`: Winnow's trainer beside a bare loop and the Trainer of Hugging Face, in one go.

Writes train.json (figures), train.md (tables) and train.png (tokens per second; losses) into --results. All train the
same decoder from the same weights over the same windows, and the losses say whether they did.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from bench.machine import machine
from bench.train import table
from bench.train.case import ROOT, Case, make_case
from bench.train.peak import matmul_flops
from bench.train.picture import draw
from bench.train.systems import SYSTEMS, Rows, System, peer_packages, run, starts_s

WARM = 3  # steps that are not counted: first use of memory, lazy imports
SAVED_EVERY = 10  # as recipes/bench/train.yaml


def main() -> None:
    arguments = _arguments()
    home, results = Path(arguments.home), Path(arguments.results)
    began = time.monotonic()
    case = make_case(home, arguments.tokens)
    peer_packages(home)
    figures = {
        "made": time.strftime("%Y-%m-%d"),
        "machine": machine(),
        "versions": {name: version(name) for name in ("torch", "deepspeed", "transformers")},
        "case": {
            "parameters": case.shape.parameters,
            "steps": case.steps,
            "tokens_per_step": case.tokens_per_step,
            "seq_len": case.seq_len,
            "flops_per_token": case.shape.flops_per_token(case.seq_len),
        },
        "peak_flops": {threads: matmul_flops(threads) for threads in (1, 2)},
        "systems": _compare(case, home, arguments.repeats),
        "start": _starts(case, arguments.repeats),
    }
    results.mkdir(parents=True, exist_ok=True)
    (results / "train.json").write_text(json.dumps(figures, indent=1) + "\n")
    figures = json.loads((results / "train.json").read_bytes())
    (results / "train.md").write_text(table.page(figures))
    draw(figures, results / "train.png")
    print(table.page(figures))
    print(f"{results}/train.md, .json, .png; {time.monotonic() - began:.0f} s", file=sys.stderr)


def _compare(case: Case, home: Path, repeats: int) -> list[dict[str, Any]]:
    """The figures of all systems. Those on as many cores take turns."""
    found: dict[System, list[dict[str, Any]]] = {system: [] for system in SYSTEMS}
    for number in range(repeats):
        for cores in sorted({system.cores for system in SYSTEMS}):
            together = [system for system in SYSTEMS if system.cores == cores]
            print(f"  {len(together)} on {cores}, run {number + 1} of {repeats} ...", file=sys.stderr, flush=True)
            made = run(together, case, home, f"bench-{cores}-{number}", WARM)
            for system, (rows, measured) in zip(together, made, strict=True):
                cost = {"cpu_s": measured.cpu_s, "peak_mb": measured.peak_mb}  # its wall time held others' turns
                found[system].append({**_figures(rows, case, saves=system.kind == "winnow"), **cost})
    return [
        {
            "name": system.name,
            "settings": system.settings,
            "kind": system.kind,
            "workers": system.workers,
            "threads": system.threads,
            "runs": runs,
        }
        for system, runs in found.items()
    ]


def _figures(rows: Rows, case: Case, *, saves: bool) -> dict[str, Any]:
    """Of one run: the mean and the median step, the steps that also saved, the losses."""
    seconds = rows.seconds(WARM)
    # The line of a step is written before its checkpoint is, so the step after it takes the time.
    saving = {step for step in seconds if saves and step % SAVED_EVERY == 0}
    plain = [s for step, s in seconds.items() if step not in saving]
    stall = median(seconds[step] for step in saving) - median(plain) if saving else None
    return {
        "steps": len(plain),
        "step_s": sum(plain) / len(plain),
        "median_step_s": median(plain),
        "first_step_s": rows.ended[0] - rows.began,
        "stall_s": stall,
        "losses": [rows.losses[step] for step in range(case.steps)],
    }


def _starts(case: Case, repeats: int) -> list[dict[str, float]]:
    """Seconds to the first step of a run that begins, and of one that goes on after it was killed."""
    starts = []
    for number in range(repeats):
        print(f"  a start and a resume, {number + 1} of {repeats} ...", file=sys.stderr, flush=True)
        cold, resumed = starts_s(case, "start", SAVED_EVERY)
        starts.append({"cold_s": cold, "resumed_s": resumed})
    return starts


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.train", description=__doc__.partition("\n")[0])
    parser.add_argument("--home", default=ROOT / "out" / "bench" / "train", help="what is made (default %(default)s)")
    parser.add_argument("--results", default=ROOT / "bench" / "results", help="default %(default)s")
    parser.add_argument("--tokens", type=int, default=96_000, help="of each run (default %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each system (default %(default)s)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
