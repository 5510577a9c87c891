"""Trials over processes of this machine or a Ray cluster, each once: what is there already is not trained again.

trials ─► <directory>/trials/<key>.json where there is one
       ─► else a worker that is free ─► the same file, written whole
"""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from manifest.cpus import cpus_here
from manifest.errors import CorruptArtifact, InputError, WinnowError
from manifest.store import write_atomic
from trainer.launch_ray import cluster
from trainer.place import process_environment
from trainer.progress import say, track
from trainer.restarts import WorkerError
from trainer.trial import Trial, TrialResult, answer
from trainer.workers import Workers

POLL_S = 0.5


def fan_out(trials: Sequence[Trial], workers: Workers, directory: Path) -> dict[str, TrialResult]:
    """The result of every trial, by its key. Shows progress, with the time that is left.

    Raises WorkerError if a worker ended before its trial, or the WinnowError that a trial raised.
    """
    place = directory / "trials"
    place.mkdir(parents=True, exist_ok=True)
    found = {trial.key: result for trial in trials if (result := _present(place, trial.key)) is not None}
    # The dearest first, so that no worker is left with one at the end.
    open_ones = {trial.key: trial for trial in sorted(trials, key=lambda trial: -trial.cost) if trial.key not in found}
    if found:
        say(f"{len(found)} of {len({trial.key for trial in trials})} trials are there already, in {place}")
    costs = {key: trial.cost for key, trial in open_ones.items()}
    results = _results(list(open_ones.values()), workers)
    share = sum(costs.values())
    for result in track(
        results, label="trials", total=len(open_ones), unit="trials", share=lambda result: costs[result.key] / share
    ):
        write_atomic(place / f"{result.key}.json", (result.model_dump_json() + "\n").encode())
        found[result.key] = result
    return found


def _present(place: Path, key: str) -> TrialResult | None:
    file = place / f"{key}.json"
    if not file.is_file():
        return None
    try:
        result = TrialResult.model_validate_json(file.read_bytes())
    except ValueError as error:
        raise CorruptArtifact(f"{file} is damaged; delete it, and the trial is run again") from error
    return result


def _results(trials: Sequence[Trial], workers: Workers) -> Iterator[TrialResult]:
    """Results as they come."""
    if not trials:
        return
    if workers.address is not None:
        yield from _on_ray(trials, workers)
        return
    count = min(workers.count or cpus_here(), len(trials))
    if count == 1:
        yield from (_understood(answer(trial.model_dump_json())) for trial in trials)
        return
    with _processes(count) as processes:
        yield from _through(processes, trials)


@contextmanager
def _processes(count: int) -> Iterator[list[subprocess.Popen[str]]]:
    """Workers on this machine. They end when this process does: their standard input closes."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "trainer.trial"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **process_environment()},
            start_new_session=True,  # ^C reaches this process only
        )
        for _ in range(count)
    ]
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.wait()
            for pipe in (process.stdin, process.stdout):
                assert pipe is not None
                pipe.close()


def _through(processes: Sequence[subprocess.Popen[str]], trials: Sequence[Trial]) -> Iterator[TrialResult]:
    waiting: queue.SimpleQueue[Trial] = queue.SimpleQueue()
    for trial in trials:
        waiting.put(trial)
    said: queue.SimpleQueue[str] = queue.SimpleQueue()
    for process in processes:
        threading.Thread(target=_ask, args=(process, waiting, said), daemon=True).start()
    for _ in trials:
        yield _understood(said.get())


def _ask(process: subprocess.Popen[str], waiting: queue.SimpleQueue[Trial], said: queue.SimpleQueue[str]) -> None:
    """Gives a worker one trial after the other, until there is none or the worker has ended."""
    assert process.stdin is not None
    assert process.stdout is not None
    while True:
        try:
            trial = waiting.get_nowait()
        except queue.Empty:
            return
        try:
            process.stdin.write(trial.model_dump_json() + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except (OSError, ValueError):  # it has ended, or this process has closed the pipe
            line = ""
        said.put(line)
        if not line:
            return


def _understood(line: str) -> TrialResult:
    if not line:
        raise WorkerError("a worker ended before its trial did; the same command goes on with the trials that are left")
    if line.startswith("error "):
        _, code, message = line.rstrip("\n").split(" ", 2)
        raise (InputError if int(code) == InputError.exit_code else WinnowError)(message)
    return TrialResult.model_validate_json(line)


def _on_ray(trials: Sequence[Trial], workers: Workers) -> Iterator[TrialResult]:
    with cluster(workers) as ray:
        gpus = int(any(node["Resources"].get("GPU") for node in ray.nodes() if node["Alive"]))
        remote: Any = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=3)(answer)
        remote = remote.options(runtime_env={"env_vars": process_environment()})
        waiting = [remote.remote(trial.model_dump_json()) for trial in trials]
        while waiting:
            done, waiting = ray.wait(waiting, timeout=POLL_S)
            for reference in done:
                yield _answered(ray, reference)


def _answered(ray: Any, reference: Any) -> TrialResult:
    try:
        return _understood(ray.get(reference))
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, WinnowError):
            raise error.cause from None
        raise WorkerError(f"a trial failed: {error}") from error
    except ray.exceptions.RayError as error:
        raise WorkerError(
            f"a worker is lost: {error}; the same command goes on with the trials that are left"
        ) from error
