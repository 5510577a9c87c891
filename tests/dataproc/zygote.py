"""Runs `dataproc` commands in forked children, so that a test pays for the imports once.

    in    a line of JSON  {"commands": [argv, …], "kill_at": n}    the commands run at the same time
    out   a line of JSON  [{"code", "stdout", "stderr", "calls"}, …]

A child counts its calls of os.rename, replace, unlink and rmdir, which are all that publishes or removes, and kills
itself at the n-th: before it if n is odd, after it if n is even.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

import dataproc.pipeline
import dataproc.report  # noqa: F401 - what the command imports when it runs
from dataproc.characters import characters
from dataproc.cli import main
from dataproc.dedup import minhash
from dataproc.dedup.components import labels

OPERATIONS = ("rename", "replace", "unlink", "rmdir")


def warm() -> None:
    """What every command would do first. None of it starts a thread, which a fork would lose."""
    labels(np.arange(2))
    minhash.warm()
    characters()
    pa.array([0])  # pyarrow looks for pandas


def count_calls(calls: Path, kill_at: int) -> None:
    counted = 0

    def counting(operation: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal counted
            counted += 1
            last = counted == kill_at
            if last and kill_at % 2:
                os.kill(os.getpid(), signal.SIGKILL)
            try:
                return operation(*arguments, **options)
            finally:
                if last:
                    os.kill(os.getpid(), signal.SIGKILL)
                calls.write_text(str(counted))

        return call

    for name in OPERATIONS:
        setattr(os, name, counting(getattr(os, name)))


def child(argv: list[str], directory: Path, kill_at: int) -> None:
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(directory / name, os.O_WRONLY | os.O_CREAT), descriptor)
    count_calls(directory / "calls", kill_at)
    sys.argv = ["dataproc", *argv]
    code: int | str | None = 1
    try:
        main()
    except SystemExit as end:
        code = end.code
    except BaseException:  # noqa: BLE001 - what an interpreter does
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 0)


def start(argv: list[str], kill_at: int) -> tuple[int, Path]:
    directory = Path(tempfile.mkdtemp())
    pid = os.fork()
    if pid == 0:
        child(argv, directory, kill_at)
    return pid, directory


def outcome(pid: int, directory: Path) -> dict[str, Any]:
    _, status = os.waitpid(pid, 0)
    calls = directory / "calls"
    return {
        "code": os.waitstatus_to_exitcode(status),
        "stdout": (directory / "stdout").read_text(),
        "stderr": (directory / "stderr").read_text(),
        "calls": int(calls.read_text()) if calls.exists() else 0,
    }


if __name__ == "__main__":
    warm()
    for line in sys.stdin:
        request = json.loads(line)
        started = [start(argv, request["kill_at"]) for argv in request["commands"]]
        print(json.dumps([outcome(*one) for one in started]), flush=True)
