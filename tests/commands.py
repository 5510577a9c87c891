"""Commands run in this process: most of a small command's life as a process would be imports."""

from __future__ import annotations

import io
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Ended:
    """How a command ended, and what it printed."""

    returncode: int
    stdout: str
    stderr: str


def ended(
    main: Callable[[Sequence[str]], None], *words: object, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> Ended:
    """Runs a console script's main() with these words, in this directory, with these variables on top."""
    stdout, stderr = io.StringIO(), io.StringIO()
    with (
        _variables(cwd, env or {}),
        _sigterm_kept(),
        redirect_stdout(stdout),
        redirect_stderr(stderr),
        pytest.raises(SystemExit) as left,
    ):
        main([str(word) for word in words])
    assert isinstance(left.value.code, int)
    return Ended(left.value.code, stdout.getvalue(), stderr.getvalue())


@contextmanager
def _variables(cwd: Path | None, env: Mapping[str, str]) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        if cwd is not None:
            patch.chdir(cwd)
        for name, value in env.items():
            patch.setenv(name, value)
        yield


@contextmanager
def _sigterm_kept() -> Iterator[None]:
    """A service catches SIGTERM from its start on."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
