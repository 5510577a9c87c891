"""A run goes on by itself when a worker is lost.

A checkpoint does not depend on who wrote it, so all workers are stopped and started anew, from the newest one. What a
recipe, a mixture or a disk is at fault for would only fail again; that is raised at once, as a WinnowError of its own.

The first restart comes at once, since a worker is mostly lost by chance; those after it, without a new checkpoint
between, wait longer each time, as what they need (a machine, a file system) may be away for a while.
"""

from __future__ import annotations

from collections.abc import Callable

from manifest.errors import WinnowError

MOST = 3
"""Restarts in a row without a new checkpoint: something fails each time, and more of them would not help."""


LONGEST_S = 60.0


class WorkerError(WinnowError):
    """A worker ended before its work was done, and not for a reason that it could name."""


def restarting(
    attempt: Callable[[], None],
    newest_step: Callable[[], int],
    *,
    most: int,
    stopped: Callable[[], bool],
    restarted: Callable[[WorkerError, int, int], None],
    pause: Callable[[float], None],
) -> None:
    """Calls `attempt` until it returns.

    newest_step: of the checkpoint that an attempt starts from. most: attempts more, in a row, without a newer one.
    stopped: whether the run was asked to stop. restarted: is told the error, the step, and how often in a row.
    pause: waits so many seconds, or until the run is asked to stop.

    Raises WorkerError when an attempt fails once more than that, or when the run was asked to stop; and what else
    `attempt` raises.
    """
    failures = 0
    while True:
        before = newest_step()
        try:
            attempt()
            return
        except WorkerError as error:
            step = newest_step()
            failures = 1 if step > before else failures + 1
            if stopped() or failures > most:
                raise
            restarted(error, step, failures)
            pause(pause_s(failures))
            if stopped():
                raise


def pause_s(failures: int) -> float:
    """Seconds before the restart after so many failures in a row."""
    return min(LONGEST_S, 5.0 * 2**failures) if failures > 1 else 0.0
