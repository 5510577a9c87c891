"""A cluster that carries out jobs as plain processes, for tests of everything but Ray itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from gateway.jobs.cluster import Status
from gateway.jobs.dispatch import Dispatcher, Terms
from gateway.ledger.database import Database


class Processes:
    """A cluster that carries out every job as a process of this machine. `dead`: it does not answer."""

    def __init__(self) -> None:
        self.python, self.alone = sys.executable, True
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.up = True

    def ready(self) -> bool:
        return self.up

    def submit(self, job: str, directory: Path) -> None:
        if job not in self.running:
            self.running[job] = subprocess.Popen(
                [self.python, "-m", "gateway.jobs.work", str(directory)], start_new_session=True
            )

    def status(self, job: str) -> Status | None:
        process = self.running.get(job)
        if process is None:
            return None
        code = process.poll()
        return Status(code is not None, "running" if code is None else f"exit code {code}")

    def stop(self, job: str) -> None:
        self.running[job].kill()

    def lose_everything(self) -> None:
        """As if the whole cluster had died and another had taken its place."""
        for process in self.running.values():
            process.kill()
            process.wait()
        self.running.clear()

    def close(self) -> None:
        self.lose_everything()


def make_dispatcher(
    database: Database, cluster: Processes, home: Path, *, owner: str = "me", cpus: int = 2, lease_s: float = 5.0
) -> Dispatcher:
    terms = Terms(
        owner=owner,
        jobs=home / "jobs",
        store=str(home / "store"),
        cpus=cpus,
        lease_s=lease_s,
        poll_s=0.1,
        max_faults=3,
    )
    return Dispatcher(database, cluster, terms)
