"""A run's figures are of its whole process tree, orphans included, and what it leaves behind is ended."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]

BURN = """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:                       # an orphan of a process that has left its session
        held = bytearray(60_000_000)
        while time.process_time() < 0.6:
            pass
        time.sleep(0.5)
    os._exit(0)
os.wait()
"""
STAY = "import os, time\nif os.fork() == 0: time.sleep(600)\n"


def measured(tmp_path: Path, code: str, limit_s: float = 60) -> dict[str, Any]:
    result = tmp_path / "measured.json"
    command = [sys.executable, "-m", "bench.dedup.measure", result, limit_s, tmp_path, tmp_path / "log"]
    subprocess.run([*map(str, command), sys.executable, "-c", code], cwd=ROOT, check=True, timeout=120)
    return dict(json.loads(result.read_text()))


def test_an_orphans_cpu_and_memory_are_counted(tmp_path: Path) -> None:
    found = measured(tmp_path, BURN)
    assert found["exit_code"] == 0
    assert found["cpu_s"] >= 0.55
    assert found["peak_mb"] >= 60
    assert found["killed"] == 0


def test_a_command_that_takes_too_long_is_ended_with_what_it_started(tmp_path: Path) -> None:
    found = measured(tmp_path, STAY + "time.sleep(600)", limit_s=1)
    assert found["timed_out"] is True
    assert found["killed"] == 2


def test_a_failure_is_the_commands_own(tmp_path: Path) -> None:
    assert measured(tmp_path, "print('why'); raise SystemExit(3)")["exit_code"] == 3
    assert (tmp_path / "log").read_text() == "why\n"
