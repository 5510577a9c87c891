"""Several runs on the same cores, a slice of time at a time, so that what else the machine does meets all alike.

    start one ─► its first steps ─► stop it ─► start the next …     then     go on, SLICE_S ─► stop ─► the next …

Each process of a run is stopped by a signal while it is not its turn. What a step took is known where the step before
it and the step itself ended in one slice.
"""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import psutil

SLICE_S = 8.0
LOOK_S = 0.05


@dataclass
class Turn:
    """A run that takes turns. steps: how many it has done. slices: when it ran, since it took turns (time.time)."""

    process: subprocess.Popen[bytes]
    steps: Callable[[], int]
    slices: list[tuple[float, float]] = field(default_factory=list)

    @property
    def is_over(self) -> bool:
        return self.process.poll() is not None

    def in_one_slice(self, before: float, after: float) -> bool:
        """Whether it ran from one time to another without a stop."""
        return any(start <= before and after <= end for start, end in self.slices)


def take_turns(starts: Sequence[Callable[[], Turn]], warm: int) -> list[Turn]:
    """Starts runs and lets them take turns until all are over. warm: steps that each does before that."""
    turns: list[Turn] = []
    try:
        for start in starts:
            turns.append(start())
            while turns[-1].steps() < warm and not turns[-1].is_over:
                time.sleep(LOOK_S)
            _signal(turns[-1], signal.SIGSTOP)
        while waiting := [turn for turn in turns if not turn.is_over]:
            for turn in waiting:
                _run(turn)
    except BaseException:
        for turn in turns:
            _signal(turn, signal.SIGKILL)
        raise
    return turns


def _run(turn: Turn) -> None:
    """One slice."""
    _signal(turn, signal.SIGCONT)
    began = time.time()
    while time.time() < began + SLICE_S and not turn.is_over:
        time.sleep(LOOK_S)
    turn.slices.append((began, time.time()))
    _signal(turn, signal.SIGSTOP)


def _signal(turn: Turn, number: signal.Signals) -> None:
    """Sends a signal to all processes of a run, from the one that was started down when they stop, else up."""
    with suppress(psutil.NoSuchProcess):
        tree = [psutil.Process(turn.process.pid)]
        tree += tree[0].children(recursive=True)
        for process in tree if number == signal.SIGSTOP else reversed(tree):
            with suppress(psutil.NoSuchProcess):  # it has ended meanwhile
                process.send_signal(number)
