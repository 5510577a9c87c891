"""Runs a run's workers, on this machine or on Ray (launch_ray.py), until all are done or one fails.

On this machine they are processes that meet on its loopback interface. The store lies where all workers see it. If a
worker is lost, the others are stopped, for they would wait for it forever, and all are started anew (restarts.py). All
of them end when this process does.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import IO

from manifest.cpus import cores_here
from manifest.errors import InputError, WinnowError
from manifest.store import LocalStore
from trainer import events, restarts
from trainer.launch_ray import run_on_ray
from trainer.place import STOP_SIGNALS, Place, free_port, process_environment
from trainer.progress import say
from trainer.restarts import WorkerError, restarting
from trainer.run import Run, newest
from trainer.workers import POLL_S, Asked, Tick
from trainer.workers import Workers as Workers
from trainer.workers import parse_workers as parse_workers

LAST_WORDS = 15
"""Lines of a worker's log that an error shows."""


def launch(
    workers: Workers, store: LocalStore, run: Run, *, tick: Tick, asked: Asked, max_restarts: int = restarts.MOST
) -> None:
    """Runs the workers to the end of the run, or, once `asked`, to the end of a step.

    max_restarts: in a row, without a new checkpoint, after a worker was lost.
    Raises WorkerError, or the WinnowError that a worker raised; InputError if there is no such cluster, or it is too
    small; KeyboardInterrupt if the run was asked to stop while it waited for room on a cluster.
    """
    # More workers than windows in a step would only read padding.
    most = min(pace.windows_per_step for pace in run.timeline.paces)
    if workers.address is not None:
        attempt = partial(run_on_ray, workers, most, store, run, tick, asked)
    else:
        count = workers.count or min(most, gpus_here() or 1)
        if count > most:
            raise InputError(f"--workers local:{count}: a step has {most} windows, so at most {most} workers have work")
        environment = process_environment(threads=max(1, cores_here() // count))
        say(_named(count, int(environment["OMP_NUM_THREADS"])))
        attempt = partial(_run_here, count, environment, store, run, tick, asked)

    def newest_step() -> int:
        found = newest(store, run)
        return found.manifest.step if found is not None else 0  # type: ignore[attr-defined]

    def restarted(error: WorkerError, step: int, failures: int) -> None:
        why = str(error).partition(";")[0]
        say(f"{why}; going on after step {step} by itself (restart {failures} of {max_restarts} without progress)")
        events.add(store.root / run.path, "restart", step, why=str(error))

    pause = partial(_pause, tick, asked)
    restarting(attempt, newest_step, most=max_restarts, stopped=asked, restarted=restarted, pause=pause)


def gpus_here() -> int:
    """The GPUs of this machine."""
    import torch  # half a second, and only where somebody asks

    return torch.cuda.device_count()


def _pause(tick: Tick, asked: Asked, seconds: float) -> None:
    """Waits so long, or until the run is asked to stop."""
    until = time.monotonic() + seconds
    while time.monotonic() < until and not asked():
        tick()
        time.sleep(POLL_S)


def _named(count: int, threads: int) -> str:
    """Such as: 2 workers here, 1 thread each."""
    workers = "1 worker" if count == 1 else f"{count} workers"
    return f"{workers} here, {threads} thread{'s' * (threads > 1)}{' each' * (count > 1)}"


def _run_here(
    count: int, environment: Mapping[str, str], store: LocalStore, run: Run, tick: Tick, asked: Asked
) -> None:
    port = free_port()
    logs = store.root / run.path / "logs"
    logs.mkdir(exist_ok=True)
    processes: list[subprocess.Popen[bytes]] = []
    try:
        with _blocked(STOP_SIGNALS):
            for rank in range(count):
                place = Place(rank, count, rank, "127.0.0.1", port)
                with _new_log(logs / f"{rank}.log").open("wb") as log:
                    processes.append(_start(store, run, place, environment, log))
        _wait(processes, logs, tick, asked)
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.wait()


def _new_log(file: Path) -> Path:
    """A place for a log; the one that is there is kept beside it, for it may say why a worker was lost."""
    if file.is_file() and file.stat().st_size:
        file.replace(file.with_name(f"{file.stem}.before.log"))
    return file


@contextmanager
def _blocked(signals: frozenset[signal.Signals]) -> Iterator[None]:
    """Processes started here hold these signals back until they are ready for them (worker.main)."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start(
    store: LocalStore, run: Run, place: Place, environment: Mapping[str, str], log: IO[bytes]
) -> subprocess.Popen[bytes]:
    """A worker in a session of its own, so that ^C reaches this process only, which passes it on."""
    loopback = {"GLOO_SOCKET_IFNAME": "lo"} if sys.platform == "linux" else {}
    return subprocess.Popen(
        [sys.executable, "-m", "trainer.worker", str(store.root), run.name, json.dumps(asdict(place))],
        stdin=subprocess.PIPE,  # held open: it closes when this process ends, however it ends
        stdout=log,
        stderr=subprocess.STDOUT,
        env={**os.environ, **environment, **loopback},
        start_new_session=True,
    )


def _wait(processes: list[subprocess.Popen[bytes]], logs: Path, tick: Tick, asked: Asked) -> None:
    passed_on = False
    while True:
        codes = [process.poll() for process in processes]
        if any(codes):
            raise _cause({rank: code for rank, code in enumerate(codes) if code}, logs)
        tick()
        if None not in codes:
            return
        if asked() and not passed_on:
            passed_on = True
            for process in processes:
                process.send_signal(signal.SIGTERM)
        time.sleep(POLL_S)


def _cause(codes: Mapping[int, int], logs: Path) -> WinnowError:
    """What the failed workers ended with: the error that one of them reported, else the last words of the first."""
    said = {rank: (logs / f"{rank}.log").read_text(encoding="utf-8", errors="replace") for rank in codes}
    for rank, text in said.items():
        _, found, message = ("\n" + text).rpartition("\nerror: ")
        if found:
            return (InputError if codes[rank] == InputError.exit_code else WinnowError)(message.strip())
    rank, code = next(iter(codes.items()))
    if code == InputError.exit_code:  # it had a message, but where its log lies there was no room for it
        return InputError(f"worker {rank} could not go on, nor write why into {logs}; is the disk full?")
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    last = "\n".join(said[rank].splitlines()[-LAST_WORDS:])
    return WorkerError(
        f"worker {rank} {how}; the same command continues from the last checkpoint. Its last words, from "
        f"{logs / f'{rank}.log'}:\n{last or '(none)'}"
    )
