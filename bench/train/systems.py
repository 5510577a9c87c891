"""How each system is run, and when each of its steps ended.

A peer writes a row per step itself. Winnow is `trainer fit`, watched from outside: a step has ended when its line
stands in metrics.jsonl, so whatever it does besides (reading, metrics, checkpoints) is in the time of a step. Systems
on as many cores take turns (turns.py).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from bench.dedup.measure import Measured
from bench.train.case import ROOT, Case, fit_command
from bench.train.turns import Turn, take_turns
from trainer.place import process_environment

LOOK_S = 0.01
LIMIT_S = 3600.0
PEER = Path(__file__).with_name("peer.txt")


@dataclass(frozen=True)
class System:
    """workers: processes, each with `threads` threads. recipe: of Winnow's."""

    name: str
    settings: str
    kind: str
    workers: int = 1
    threads: int = 1
    recipe: str = "train.yaml"

    @property
    def cores(self) -> int:
        return self.workers * self.threads


SYSTEMS = (
    System("Winnow", "trainer fit, ZeRO 1, a checkpoint every 10 steps", "winnow"),
    System("bare loop", "torch: forward, backward, clip, fused AdamW", "bare"),
    System("Hugging Face Trainer", "LlamaForCausalLM, SDPA, fused AdamW", "hf"),
    System("Winnow", "the same", "winnow", workers=2),
    System("Winnow, ZeRO 0", "each has all of the optimiser", "winnow", workers=2, recipe="train_zero0.yaml"),
    System("Winnow", "the same, OMP_NUM_THREADS=2", "winnow", threads=2),
    System("bare loop", "one process with 2 threads", "bare", threads=2),
    System("Hugging Face Trainer", "DistributedDataParallel, gloo", "hf", workers=2),
    System("Hugging Face Trainer", "one process with 2 threads", "hf", threads=2),
)


@dataclass
class Rows:
    """ended: when each step was over (time.time). losses: nats per target. began: when the process was started."""

    began: float = 0.0
    ended: dict[int, float] = field(default_factory=dict)
    losses: dict[int, float] = field(default_factory=dict)
    turn: Turn | None = None

    def of(self, turn: Turn) -> Rows:
        """These, with the turns that the run has taken."""
        return replace(self, turn=turn)

    def seconds(self, first: int) -> dict[int, float]:
        """Of the steps from `first` on that are known, each from the end of the one before it."""
        assert self.turn is not None
        pairs = ((step, self.ended[step - 1], self.ended[step]) for step in sorted(self.ended) if step >= first)
        return {step: after - before for step, before, after in pairs if self.turn.in_one_slice(before, after)}


def run(systems: Sequence[System], case: Case, home: Path, name: str, warm: int) -> list[tuple[Rows, Measured]]:
    """One run of each system, in turns, measured from outside. warm: steps that are not counted.

    Raises RuntimeError if one fails.
    """
    with ExitStack() as watches:
        runs = [_Run.of(system, case, home, f"{name}-{place}", watches) for place, system in enumerate(systems)]
        turns = take_turns([run.start for run in runs], warm)
    return [(run.rows.of(turn), run.measured()) for run, turn in zip(runs, turns, strict=True)]


@dataclass(frozen=True)
class _Run:
    """A run of a system: its command, and its rows as they come."""

    command: list[str]
    environment: dict[str, str]
    work: Path
    rows: Rows

    @classmethod
    def of(cls, system: System, case: Case, home: Path, name: str, watches: ExitStack) -> _Run:
        work = home.absolute() / "runs" / name
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        if system.kind == "winnow":
            directory = Path(case.store) / "runs" / name
            shutil.rmtree(directory, ignore_errors=True)
            watches.callback(shutil.rmtree, directory)
            rows = watches.enter_context(Watched(directory / "metrics.jsonl"))
            where, workers = (case.store, case.mixture), f"local:{system.workers}"
            command = fit_command(*where, name=name, workers=workers, tokens=case.tokens, recipe=system.recipe)
            return cls(command, {**os.environ, "OMP_NUM_THREADS": str(system.threads)}, work, rows)
        rows = watches.enter_context(Watched(work / "rows.jsonl"))
        launcher = (
            ["-m", "torch.distributed.run", "--nproc-per-node", str(system.workers)] if system.workers > 1 else []
        )
        command = [sys.executable, *launcher, "-m", f"bench.train.{system.kind}", f"{case.directory}/case.json"]
        return cls([*command, str(work / "rows.jsonl")], _environment(system, home), work, rows)

    def start(self) -> Turn:
        """Under `bench.dedup.measure`, from the repository's root."""
        self.rows.began = time.time()
        arguments = [str(self.work / "measured.json"), str(LIMIT_S), str(ROOT), str(self.work / "log"), *self.command]
        command = [sys.executable, "-m", "bench.dedup.measure", *arguments]
        environment = {**self.environment, "MEASURED_BESIDE": "1"}
        # In a session of its own: a group with stopped processes is hung up when the shell that started it ends.
        process = subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True)
        return Turn(process, lambda: len(self.rows.ended))

    def measured(self) -> Measured:
        """What it cost, once it is over. Raises RuntimeError if it failed."""
        measured = Measured(**json.loads((self.work / "measured.json").read_bytes()))
        if measured.exit_code:
            said = (self.work / "log").read_text(errors="replace")[-2000:]
            raise RuntimeError(f"`{' '.join(self.command)}` failed:\n{said}")
        return measured


class Watched:
    """Rows of a file that a run writes, each with the time that it names, or at which it stood there."""

    def __init__(self, file: Path) -> None:
        self._file, self._rows, self._over, self._lines = file, Rows(), threading.Event(), 0
        self._thread = threading.Thread(target=self._watch, name="watch", daemon=True)

    def __enter__(self) -> Rows:
        self._thread.start()
        return self._rows

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(LOOK_S):
            self._look()
        self._look()

    def _look(self) -> None:
        if not self._file.is_file():
            return
        now, lines = time.time(), self._file.read_bytes().split(b"\n")[:-1]
        for line in lines[self._lines :]:
            row = json.loads(line)
            self._rows.ended.setdefault(row["step"], row.get("at", now))
            if "loss" in row:
                self._rows.losses[row["step"]] = row["loss"]
        self._lines = len(lines)


def starts_s(case: Case, name: str, saved: int) -> tuple[float, float]:
    """Seconds to the first step of a run that begins, and of one that goes on after it was killed.

    saved: the step after which the first run publishes a checkpoint; it is killed as soon as that is there.
    """
    directory = Path(case.store) / "runs" / name
    shutil.rmtree(directory, ignore_errors=True)
    metrics, checkpoint = directory / "metrics.jsonl", directory / "checkpoints" / f"{saved:08d}" / "manifest.json"
    command = fit_command(case.store, case.mixture, name=name, workers="local:1", tokens=case.tokens)

    def rows() -> int:
        return metrics.read_bytes().count(b"\n") if metrics.is_file() else 0

    cold = _seconds_until(command, lambda: rows() > 0, stop=checkpoint.is_file)
    assert rows() == saved, "it was killed before its next step"
    resumed = _seconds_until(command, lambda: rows() > saved)
    shutil.rmtree(directory)
    return cold, resumed


def _seconds_until(command: list[str], seen: Callable[[], bool], stop: Callable[[], bool] = lambda: True) -> float:
    """Starts a command; the seconds until something is seen. It is killed as soon as `stop` is true after that."""
    began = time.time()
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    seconds = None
    while seconds is None or not stop():
        if process.poll() is not None:
            raise RuntimeError(f"`{' '.join(command)}` ended with {process.returncode} before it was killed")
        if seconds is None and seen():
            seconds = time.time() - began
        time.sleep(LOOK_S)
    _kill_tree(process)
    return seconds


def _kill_tree(process: subprocess.Popen[bytes]) -> None:
    """The command and its workers, which end when it does."""
    process.kill()
    process.wait()
    time.sleep(1.0)


def _environment(system: System, home: Path) -> dict[str, str]:
    """Peers get the settings that make Winnow's own workers fast, and the package that they need besides."""
    paths = [str(peer_packages(home)), os.environ.get("PYTHONPATH", "")]
    return {
        **os.environ,
        **process_environment(),
        "OMP_NUM_THREADS": str(system.threads),
        "PYTHONPATH": os.pathsep.join(path for path in paths if path),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }


def peer_packages(home: Path) -> Path:
    """A directory with what peer.txt pins; installed once, by pip, without dependencies: those are there."""
    directory = home.absolute() / "packages"
    mark = directory / ".installed"
    if not mark.is_file() or mark.read_text() != PEER.read_text():
        shutil.rmtree(directory, ignore_errors=True)
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([*pip, "--target", str(directory), "--requirement", str(PEER)], check=True)
        mark.write_text(PEER.read_text())
    return directory
