"""A virtual environment per peer, with what its requirements file pins, made with the ordinary pip."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

NEEDS_PYTHON = re.compile(r"^# needs Python ([\d.]+)", re.MULTILINE)
INSTALL_LIMIT_S = 1800


class Unavailable(Exception):  # noqa: N818 - the reason goes into the table
    """A peer cannot be run here; the message says why."""


def environment(home: Path, name: str, requirements: Path) -> Path:
    """The Python of a virtual environment that has what a requirements file pins. Raises Unavailable."""
    directory = home / "env" / name
    python = directory / "bin" / "python"
    mark = directory / ".installed"
    wanted = hashlib.sha256(requirements.read_bytes()).hexdigest()
    if mark.is_file() and mark.read_text() == wanted:
        return python
    print(f"  installing {name} into {directory} ...", file=sys.stderr, flush=True)
    shutil.rmtree(directory, ignore_errors=True)
    _run([str(_interpreter(requirements)), "-m", "venv", str(directory)])
    _run([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", str(requirements)])
    mark.write_text(wanted)
    return python


def _run(command: list[str]) -> None:
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=INSTALL_LIMIT_S, check=False
    )
    if done.returncode:
        errors = [line for line in done.stdout.splitlines() if "ERROR" in line or "Error" in line]
        last = (errors or done.stdout.splitlines() or ["no message"])[-1]
        raise Unavailable(f"`{' '.join(command[1:4])} …` failed: {last.strip()}")


def _interpreter(requirements: Path) -> Path:
    """This Python, or another of this machine if the requirements say that they need a later one."""
    needed = NEEDS_PYTHON.search(requirements.read_text())
    if needed is None:
        return Path(sys.executable)
    lowest = tuple(map(int, needed[1].split(".")))
    for path in _interpreters():
        if _version(path) >= lowest:
            return path
    raise Unavailable(f"it needs Python {needed[1]} or later, and this machine has none on its PATH or under ~/.pyenv")


def _interpreters() -> Iterator[Path]:
    yield Path(sys.executable)
    roots = [Path(part) for part in os.environ.get("PATH", "").split(os.pathsep)]
    roots += sorted((Path.home() / ".pyenv" / "versions").glob("*/bin"))
    for minor in range(12, 20):
        yield from (root / f"python3.{minor}" for root in roots if (root / f"python3.{minor}").is_file())


def _version(python: Path) -> tuple[int, ...]:
    code = "import sys; print(*sys.version_info[:2])"
    done = subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=False)
    return tuple(map(int, done.stdout.split())) if done.returncode == 0 else (0,)
