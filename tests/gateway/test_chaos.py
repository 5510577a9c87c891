"""Fifty builds on a real Ray, with the service killed five times and Ray once: all end, none is lost or doubled."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest
from work_fixtures import data_recipe, write_raw

from manifest.store import open_store

BUILDS = 50
KILLS = {5, 13, 21, 30, 40}
"""The service is killed when so many builds have ended."""
RAY_KILL = 26
ENDED = {"succeeded", "failed", "cancelled"}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]


class Gateway:
    """`gateway serve` as a process, on the port it had before."""

    def __init__(self, home: Path, raw: Path, database_url: str) -> None:
        self.home = home
        self.log = home / "service.log"
        self.port = 0
        self.command = [
            *(sys.executable, "-m", "gateway.serve", "serve", "--home", str(home), "--raw-root", str(raw)),
            *("--database", database_url),
        ]
        self.environment = {**os.environ, "WINNOW_LEASE_S": "3"}
        self.http = httpx2.Client(timeout=20, headers={"Authorization": f"Bearer {self._key(database_url)}"})
        self.process: subprocess.Popen[str]

    def _key(self, database_url: str) -> str:
        """Needed over PostgreSQL, which others could reach."""
        command = ["-m", "gateway.serve", "keys", "add", "tester", "--scope", "admin", "--database", database_url]
        made = subprocess.run([sys.executable, *command], stdout=subprocess.PIPE, text=True, check=True)
        return made.stdout.strip()

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*self.command, "--port", str(self.port)],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=self.environment,
            )
        assert self.process.stdout is not None
        url = self.process.stdout.readline().strip()
        assert url, self.log.read_text()[-3000:]
        self.port = int(url.rpartition(":")[2])

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def end(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)

    def ray_processes(self) -> list[psutil.Process]:
        """Of the Ray that this service started."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def get(self, path: str) -> Any:
        answer = self.http.get(f"http://127.0.0.1:{self.port}{path}")
        answer.raise_for_status()
        return answer.json()

    def post_build(self, recipe: dict[str, Any], raw: Path) -> str:
        """Asks for a build until there is an answer; the key makes the second time the first."""
        body = {"recipe": recipe, "raw": str(raw)}
        headers = {"Idempotency-Key": f"key of {recipe['name']}"}
        answer = self.http.post(f"http://127.0.0.1:{self.port}/v1/builds", json=body, headers=headers)
        assert answer.is_success, answer.text
        return str(answer.json()["id"])

    def builds(self) -> list[dict[str, Any]]:
        return list(self.get("/v1/builds?limit=200")["items"])


@pytest.fixture
def gateway(tmp_path: Path, database_url: str) -> Iterator[Gateway]:
    raw = write_raw(tmp_path / "raw")
    made = Gateway(tmp_path / "home", raw, database_url)
    made.home.mkdir()
    made.start()
    yield made
    if made.process.poll() is None:
        made.kill()


def test_kills_lose_and_double_nothing(gateway: Gateway, tmp_path: Path) -> None:
    rng = random.Random(0)
    asked = [gateway.post_build(data_recipe(f"build{i:02}"), tmp_path / "raw") for i in range(BUILDS)]
    assert len(set(asked)) == BUILDS
    killed, ray_killed = 0, False
    while True:
        states = Counter(build["state"] for build in gateway.builds())
        ended = sum(states[state] for state in ENDED)
        if ended == BUILDS:
            break
        if ended >= RAY_KILL and not ray_killed:
            ray_killed = _kill_ray(gateway)
        elif killed < len(KILLS) and ended >= sorted(KILLS)[killed]:
            time.sleep(rng.random() * 2)  # anywhere in the life of a build
            gateway.kill()
            killed += 1
            gateway.start()
        time.sleep(0.5)
    assert (killed, ray_killed) == (len(KILLS), True)
    _all_final_none_doubled(gateway, asked)
    left = gateway.ray_processes()
    assert gateway.end() == 0
    _, alive = psutil.wait_procs(left, timeout=30)
    assert not alive


def _kill_ray(gateway: Gateway) -> bool:
    """Kills the heart of the service's Ray; the rest of it is left to find out."""
    hearts = [p for p in gateway.ray_processes() if p.name() in ("gcs_server", "raylet")]
    for process in hearts:
        process.kill()
    return bool(hearts)


def _all_final_none_doubled(gateway: Gateway, asked: list[str]) -> None:
    builds = gateway.builds()
    assert sorted(build["id"] for build in builds) == sorted(asked)
    assert Counter(build["state"] for build in builds) == {"succeeded": BUILDS}
    assert len({build["result"]["id"] for build in builds}) == BUILDS
    store = open_store(gateway.home / "store")
    assert sorted(f"mixtures/{name}" for name in store.list("mixtures")) == sorted(b["result"]["path"] for b in builds)
    for build in builds:
        events = _events(gateway, build["id"])
        assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
        assert Counter(e["state"] for e in events if e["type"] == "state")["succeeded"] == 1


def _events(gateway: Gateway, build: str) -> list[dict[str, Any]]:
    text = gateway.http.get(f"http://127.0.0.1:{gateway.port}/v1/builds/{build}/events").text
    data = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    return [event for event in map(json.loads, data) if event and "seq" in event]
