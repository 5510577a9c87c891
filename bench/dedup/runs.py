"""One run of one system over one corpus: measured from outside, judged by the exact answer, kept for the next time.

    <home>/runs/<corpus>/<system>-<digest>/<number>/   measured.json, removed.txt, log

`digest` covers what a run depends on: script and pinned packages of a peer, code and recipe of Winnow. So a run that is
there is not repeated, and other code makes another one. A run that failed is kept too, with the last line that it said.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from bench.dedup.corpora import Corpus
from bench.dedup.measure import Measured

ROOT = Path(__file__).parents[2]
LIMIT_S = 3600.0
SCRATCH = "work"


class System(Protocol):
    """Something that removes near-duplicates: a peer, or Winnow. `digest` is of all of ours that a run depends on.

    by_words: whether it does the benchmark's task, whose exact answer is known.
    """

    @property
    def name(self) -> str: ...

    @property
    def settings(self) -> str: ...

    @property
    def at_most(self) -> int: ...

    @property
    def by_words(self) -> bool: ...

    @property
    def version(self) -> str: ...

    @property
    def digest(self) -> str: ...

    def command(self, home: Path, corpus: Corpus, work: Path) -> list[str]: ...

    def removed(self, work: Path) -> list[str]: ...


def run(system: System, home: Path, corpus: Corpus, number: int) -> dict[str, Any]:
    """A run's figures: those that are kept, or measured now. Raises Unavailable."""
    directory = run_directory(system, home, corpus) / str(number)
    result = directory / "run.json"
    if not result.is_file():
        shutil.rmtree(directory, ignore_errors=True)
        work = directory / SCRATCH
        work.mkdir(parents=True)
        command = system.command(home, corpus, work)
        print(f"  {system.name}, {corpus.name}, run {number} ...", file=sys.stderr, flush=True)
        _read_through(corpus)
        measured = measured_run(command, work, directory)
        figures = {**vars(measured), "load": os.getloadavg()[0]}
        if measured.exit_code == 0:
            removed = system.removed(work)
            figures |= {"score": vars(corpus.score(removed))}
            (directory / "removed.txt").write_text("".join(f"{name}\n" for name in removed))
        else:
            figures |= {"failure": _why(measured, directory / "log")}
        shutil.rmtree(work)
        result.write_text(json.dumps(figures, indent=1))
    return dict(json.loads(result.read_bytes()))


def run_directory(system: System, home: Path, corpus: Corpus) -> Path:
    """Where the runs of a system over a corpus are kept."""
    return home / "runs" / corpus.name / f"{_plain(system.name)}-{system.digest}"


def measured_run(command: Sequence[str], work: Path, directory: Path, limit_s: float = LIMIT_S) -> Measured:
    """A command measured by a process of its own (measure.py), in the directory `work`."""
    result, log = (directory / "measured.json").absolute(), (directory / "log").absolute()
    arguments = [str(result), str(limit_s), str(work.absolute()), str(log), *command]
    _call([sys.executable, "-m", "bench.dedup.measure", *arguments], _environment(command, work))
    return Measured(**json.loads(result.read_bytes()))


def _environment(command: Sequence[str], work: Path) -> dict[str, str]:
    """Of the surroundings, what the command needs: peers neither see our packages nor ask a hub for anything."""
    there = dict(os.environ)
    if command[0] != sys.executable:
        there.pop("PYTHONPATH", None)
    hub = {"HF_HOME": str((work / "hub").absolute()), "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    return {**there, **hub, "RAY_USAGE_STATS_ENABLED": "0", "TOKENIZERS_PARALLELISM": "false"}


def _call(command: Sequence[str], there: dict[str, str] | None = None) -> None:
    done = subprocess.run(command, cwd=ROOT, env=there, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise RuntimeError(f"`{' '.join(command)}` ended with {done.returncode}:\n{done.stdout[-2000:]}")


def _why(measured: Measured, log: Path) -> str:
    if measured.timed_out:
        return f"stopped after {measured.wall_s:,.0f} s"
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if "Error" in line or "error:" in line]
    return f"exit code {measured.exit_code}: {(errors or lines or ['no message'])[-1][:200]}"


def _read_through(corpus: Corpus) -> None:
    """Reads what a run will read, so that no run pays for a cold disk."""
    for path in sorted(corpus.path.rglob("*")):
        if path.is_file():
            path.read_bytes()


def _plain(name: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in name)
