"""The entrypoint of a job on Ray: does its tasks one after another, and keeps the journal.

    python -m gateway.jobs.work <home>/jobs/<job> [host:port of this job's Ray]

It knows neither the ledger nor HTTP. What it leaves behind when it is killed is in the store; the next attempt goes on
from there, after this one has let go of the entry's lock.
"""

from __future__ import annotations

import fcntl
import os
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gateway.jobs import carry_out
from gateway.jobs.attempt import STOPPED, Attempt, Cancelled, watch_for_cancel
from gateway.jobs.journal import LOG, Job, Journal, Task, read_job
from gateway.messages import Failure, FieldError, Result
from manifest.cpus import cpus_here
from manifest.errors import InputError, RecipeError, WinnowError, disk_error
from manifest.progress import listening

LOCK_WAIT_S = 120.0
LOCK_POLL_S = 0.2


def main() -> None:
    directory = Path(sys.argv[1])
    if len(sys.argv) > 2:
        os.environ["RAY_ADDRESS"] = sys.argv[2]
    job = read_job(directory)
    _print_to(directory / LOG)
    _share_the_machine(max(task.workers for task in job.tasks))
    journal = Journal(directory)
    for task in job.tasks:
        _do(directory, job, task, journal)
    journal.close()


def _do(directory: Path, job: Job, task: Task, journal: Journal) -> None:
    """One task, from planning to its last line."""
    attempt = Attempt(task, journal)
    try:
        with watch_for_cancel(directory, task.entry), _locked(Path(job.locks) / task.entry, attempt):
            attempt.say(state="planning")
            with listening(attempt.heard):
                result = _carry_out(job, task, attempt)
            attempt.say(state="succeeded", result=result, durable=True)
    except Cancelled:
        attempt.say(state="cancelled", durable=True)
    except WinnowError as error:
        attempt.say(state="failed", failure=_failure(error), durable=True)
    except OSError as error:
        known = disk_error(error)
        attempt.say(state="failed", failure=_failure(known) if known else _unexpected(error), durable=True)
    except Exception as error:  # noqa: BLE001 - it ends this task, is told to the user, and the next task is another's
        attempt.say(state="failed", failure=_unexpected(error), durable=True)


def _carry_out(job: Job, task: Task, attempt: Attempt) -> Result:
    kinds = {"build": carry_out.build, "run": carry_out.run, "report": carry_out.report}
    return kinds[task.kind](job, task, attempt)


def _failure(error: WinnowError) -> Failure:
    print(f"error: {error}", file=sys.stderr, flush=True)
    problems = error.problems if isinstance(error, RecipeError) else ()
    return Failure(
        detail=str(error),
        input_is_wrong=isinstance(error, InputError),
        errors=[FieldError.at(("recipe", *problem.field), problem.message) for problem in problems],
    )


def _unexpected(error: Exception) -> Failure:
    traceback.print_exc()
    return Failure(
        detail=f"an error that should not happen, {type(error).__name__}: {error}; its traceback is in the log",
        input_is_wrong=False,
    )


@contextmanager
def _locked(file: Path, attempt: Attempt) -> Iterator[None]:
    """The entry, for one attempt at a time: the processes of a lost one live on for seconds.

    One that does not end in LOCK_WAIT_S ends this process, for another attempt later.
    """
    with file.open("w") as opened:
        given_up = time.monotonic() + LOCK_WAIT_S
        waited = False
        while True:
            try:
                fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > given_up:
                    print(f"an earlier attempt still holds {file} after {LOCK_WAIT_S:.0f} s", file=sys.stderr)
                    sys.exit(STOPPED)
                if not waited:
                    attempt.say(note="waiting for an earlier attempt to end")
                waited = True
                time.sleep(LOCK_POLL_S)
        yield


def _print_to(log: Path) -> None:
    """From here on, everything that this process and its children print is in the job's log."""
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)


def _share_the_machine(workers: int) -> None:
    """As many threads as CPUs were asked for and are here; set before the libraries that read it are loaded."""
    threads = min(workers, cpus_here())
    for name in ("OMP_NUM_THREADS", "POLARS_MAX_THREADS", "RAYON_NUM_THREADS"):
        os.environ[name] = str(threads)
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # threads that spin take processor time from the other jobs


if __name__ == "__main__":
    main()
