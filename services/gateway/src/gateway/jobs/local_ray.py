"""A Ray of the gateway's own, kept by a process beside it that ends with it, however it ends.

    gateway ──stdin──► python -m gateway.jobs.local_ray CPUS ──► Ray, its dashboard on 127.0.0.1
                            stdout: the dashboard's URL and the address of its GCS, once it is up

The keeper holds Ray as its driver and shuts it down when its stdin closes, or kills what is left of it when its heart
has died. So nothing is left running, no other Ray on the machine is touched, and the gateway itself loads no Ray.
"""

from __future__ import annotations

import logging
import os
import secrets
import select
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import psutil

from gateway.jobs.cluster import RayCluster, Status, Unreachable

SILENT_S = 60.0
"""A Ray that has not answered for so long is started anew; one that has died is found out at once."""
START_S = 180.0
STOP_S = 30.0

HEARTS = frozenset({"gcs_server", "raylet"})
"""What a Ray cannot live without."""
WATCH_S = 1.0

log = logging.getLogger("gateway.ray")


class LocalRay:
    """The cluster that `gateway serve` starts when it is given none."""

    alone = True

    def __init__(self, cpus: int, logs: Path) -> None:
        self.python = sys.executable
        self._cpus = cpus
        self._logs = logs
        self._token = secrets.token_hex(32)
        self._keeper: subprocess.Popen[bytes] | None = None
        self._cluster: RayCluster | None = None
        self._url: str | None = None
        self._gcs: str | None = None
        self._answered = 0.0
        self._closed = False

    def ready(self) -> bool:
        if self._closed:
            return False
        if self._keeper is None or self._keeper.poll() is not None:
            self._start()
            return False
        if self._cluster is None:
            if self._url is None:
                self._drop_if_silent(START_S)
                return False
            self._cluster = RayCluster(self._url, self._token, self.python, self._gcs)
        if self._cluster.ready():
            self._answered = time.monotonic()
            return True
        self._drop_if_silent(SILENT_S)
        return False

    def submit(self, job: str, directory: Path) -> None:
        self._running().submit(job, directory)
        self._answered = time.monotonic()

    def status(self, job: str) -> Status | None:
        return self._running().status(job)

    def stop(self, job: str) -> None:
        self._running().stop(job)

    def close(self) -> None:
        self._closed = True
        self._drop()

    def _running(self) -> RayCluster:
        if self._cluster is None:
            raise Unreachable("the Ray of this service is not up")
        return self._cluster

    def _start(self) -> None:
        if self._keeper is not None:
            log.warning("Ray ended with exit code %s; starting another one", self._keeper.returncode)
        self._drop()
        log.info("starting Ray with %d CPUs", self._cpus)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        with self._logs.open("ab") as log_file:
            self._keeper = subprocess.Popen(
                [sys.executable, "-m", "gateway.jobs.local_ray", str(self._cpus)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log_file,
                env={**environment, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self._token},
                start_new_session=True,  # ^C is for the gateway, which then ends this one
            )
        self._answered = time.monotonic()
        threading.Thread(target=self._listen, args=(self._keeper,), daemon=True).start()

    def _listen(self, keeper: subprocess.Popen[bytes]) -> None:
        assert keeper.stdout is not None
        said = keeper.stdout.readline().decode().split()
        if said and keeper is self._keeper:
            log.info("Ray is up after %.0f s", time.monotonic() - self._answered)
            self._url, self._gcs = said

    def _drop_if_silent(self, limit_s: float) -> None:
        if time.monotonic() - self._answered > limit_s:
            log.warning("Ray has not answered for %.0f s; starting another one", limit_s)
            self._drop()

    def _drop(self) -> None:
        keeper, self._keeper, self._url = self._keeper, None, None
        if self._cluster is not None:
            self._cluster.close()
            self._cluster = None
        if keeper is None:
            return
        assert keeper.stdin is not None
        keeper.stdin.close()
        try:
            keeper.wait(STOP_S)
        except subprocess.TimeoutExpired:
            os.killpg(keeper.pid, signal.SIGKILL)
            keeper.wait()


def main() -> None:
    """The keeper."""
    from dataproc.workers.cluster import private_ray, ray_address

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    report = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what Ray prints is no URL
    with private_ray(int(sys.argv[1]), dashboard=True) as url, suppress(BrokenPipeError):  # if the gateway is gone
        print(url, ray_address(), file=report, flush=True)
        hearts = [child for child in psutil.Process().children() if child.name() in HEARTS]
        while not select.select([sys.stdin], [], [], WATCH_S)[0]:
            if any(not heart.is_running() or heart.status() == psutil.STATUS_ZOMBIE for heart in hearts):
                os.killpg(0, signal.SIGKILL)  # it would wait a minute for what is dead


if __name__ == "__main__":
    main()
