"""One worker of a run: `python -m trainer.worker STORE RUN PLACE`, started by launch.py.

It ends when the process that started it does (its standard input closes), and at SIGTERM it saves at the end of its
step.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from manifest.errors import run_command
from trainer.place import STOP_SIGNALS, Place


def work(store: str, run: str, place: Place, stop: Callable[[], bool]) -> None:
    """Does the part of worker `place` in the run named `run`. Raises what loop.train raises."""
    from trainer.engine import join, leave
    from trainer.loop import train
    from trainer.run import local_store, read_run

    join(place)
    train(local_store(store), read_run(Path(store) / "runs" / run), stop)
    leave()


def main() -> None:
    """The process of a local worker."""
    store, run, place = sys.argv[1:]
    asked = threading.Event()
    for number in STOP_SIGNALS:
        signal.signal(number, lambda *_: asked.set())
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)  # launch.py has them held back until here
    threading.Thread(target=_die_with_parent, name="parent", daemon=True).start()
    code = run_command(lambda: work(store, run, Place(**json.loads(place)), asked.is_set))
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)  # at the interpreter's end, threads of torch that still run can abort a worker that has finished


def _die_with_parent() -> None:
    """Standard input is a pipe that the parent holds open and never writes to; a killed parent closes it too."""
    os.read(0, 1)  # not through sys.stdin, whose lock the end of the interpreter wants
    os._exit(1)


if __name__ == "__main__":
    main()
