"""`gateway serve` as a process, with the Ray that it starts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
from tests.commands import ended

from gateway.client import Client
from gateway.serve import main

RAY = ("gcs_server", "raylet")


class Gateway:
    """On the port that it had before, when it is started again. `--home` is there with all that it writes."""

    def __init__(self, home: Path, raw: Path, database_url: str = "") -> None:
        home.mkdir(parents=True, exist_ok=True)
        self.home = home
        self.log = home / "service.log"
        self.port = 0
        database = ["--database", database_url] if database_url else []
        self.key = self._make_key(database)
        self.words = ["serve", "--home", str(home), "--raw-root", str(raw), *database]
        self.process: subprocess.Popen[str]

    def _make_key(self, database: list[str]) -> str:
        """Needed over PostgreSQL, which others could reach."""
        made = ended(main, "keys", "add", "tester", "--scope", "admin", "--home", self.home, *database)
        assert made.returncode == 0, made.stderr
        return made.stdout.strip()

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gateway.serve", *self.words, "--port", str(self.port)],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, "WINNOW_LEASE_S": "3"},
            )
        assert self.process.stdout is not None
        url = self.process.stdout.readline().strip()
        assert url, self.log.read_text()[-3000:]
        self.port = int(url.rpartition(":")[2])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(self) -> Client:
        return Client(self.url, self.key)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def end(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)

    def children(self) -> list[psutil.Process]:
        """Of the service: its Ray, and the jobs there."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def kill_ray(self) -> int:
        """Kills the heart of the service's Ray; the rest of it is left to find out. Returns how many processes."""
        hearts = [process for process in self.children() if process.name() in RAY]
        for process in hearts:
            process.kill()
        return len(hearts)


def all_gone(processes: list[psutil.Process], limit_s: float = 30.0) -> bool:
    """Whether processes end within so many seconds."""
    return not psutil.wait_procs(processes, timeout=limit_s)[1]
