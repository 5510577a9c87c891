"""A measurement in a process of its own, on one core or all: what it says as JSON, and what else ran meanwhile."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).parents[2]
TICK = os.sysconf("SC_CLK_TCK")
LIMIT_S = 600
Figures = dict[str, Any]


def measured(command: Sequence[str], *, cores: int = 1, ours: bool = True) -> Figures:
    """The last line that a command prints, as JSON, with `others`: CPUs' worth of work of other programs meanwhile.

    ours: whether it sees our packages; peers see nothing but their own environment, and ask no hub for anything.
    Raises RuntimeError with the end of what it said if it fails.
    """
    chosen = sorted(os.sched_getaffinity(0))[-cores:]
    there = dict(os.environ)
    if not ours:
        there.pop("PYTHONPATH", None)
    there |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
    there |= dict.fromkeys(("OMP_NUM_THREADS", "RAYON_NUM_THREADS"), str(len(chosen)))
    there["TOKENIZERS_PARALLELISM"] = "true" if len(chosen) > 1 else "false"
    busy, own, began = _busy_s(), _children_s(), time.monotonic()
    done = subprocess.run(
        ["taskset", "-c", ",".join(map(str, chosen)), *command],
        cwd=ROOT,
        env=there,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(
            f"`{' '.join(command)}` ended with {done.returncode}:\n{(done.stdout + done.stderr)[-2000:]}"
        )
    others = (_busy_s() - busy - _children_s() + own) / (time.monotonic() - began)
    return {**json.loads(done.stdout.strip().splitlines()[-1]), "others": round(max(0.0, others), 2)}


def python(module: str, *arguments: str | Path | int) -> list[str]:
    """The command that runs a module of ours."""
    return [sys.executable, "-m", module, *map(str, arguments)]


def middle(runs: Sequence[Mapping[str, Any]], figure: str) -> float:
    """The median of a figure."""
    return float(median(run[figure] for run in runs))


def spread(runs: Sequence[Mapping[str, Any]], figure: str) -> float:
    """How far the runs lie apart, as a share of their median."""
    values = [run[figure] for run in runs]
    return float((max(values) - min(values)) / median(values))


def say(line: str) -> None:
    print(f"  {line}", file=sys.stderr, flush=True)


def _busy_s() -> float:
    """CPU seconds that this machine has spent on anything since it was started."""
    user, nice, system, _idle, _wait, interrupts, soft = map(int, Path("/proc/stat").read_text().split()[1:8])
    return (user + nice + system + interrupts + soft) / TICK


def _children_s() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
