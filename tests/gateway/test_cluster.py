"""A service over a Ray cluster that is there without it, and a PostgreSQL: what a team runs."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from gateway_process import Gateway
from work_fixtures import SIZES, data_recipe, train_recipe, write_raw

from gateway.jobs.cluster import RayCluster, Refused, Unreachable
from gateway.messages import BuildOptions, BuildRequest, RunRequest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

TOKEN = secrets.token_hex(32)


@pytest.fixture(scope="module")
def ray_url() -> Iterator[str]:
    """The dashboard of a cluster with a token, started as an operator would."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    directory = tempfile.mkdtemp(prefix="ray-")  # the paths of its sockets have to be short
    flags = {"port": 0, "num-cpus": 2, "dashboard-port": port, "dashboard-agent-listen-port": 0, "temp-dir": directory}
    command = [Path(sys.executable).with_name("ray"), "start", "--head", "--block", "--dashboard-host=127.0.0.1"]
    environment = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN, "RAY_USAGE_STATS_ENABLED": "0"}
    with (Path(directory) / "log").open("wb") as log:
        cluster = subprocess.Popen(
            [*command, *(f"--{name}={value}" for name, value in flags.items())],
            stdout=log,
            stderr=log,
            env=environment,
            start_new_session=True,
        )
    yield f"http://127.0.0.1:{port}"
    os.killpg(cluster.pid, signal.SIGTERM)
    cluster.wait(60)
    shutil.rmtree(directory, ignore_errors=True)


def test_work_goes_to_the_cluster_and_outlives_the_service(
    ray_url: str, postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WINNOW_RAY", ray_url)
    monkeypatch.setenv("WINNOW_RAY_TOKEN", TOKEN)
    gateway = Gateway(tmp_path / "home", write_raw(tmp_path / "raw", documents=3000), postgres_url)
    gateway.start()
    try:
        with gateway.client() as client:
            request = BuildRequest(recipe=data_recipe(), raw=".", options=BuildOptions(workers=2))
            build = client.submit(request)[0].id
            for event in client.events(build):
                if event.state == "running":
                    break
            gateway.kill()
            gateway.start()
            ended = client.wait(build)
            assert ended.state == "succeeded", ended.failure
            assert ended.attempt == 1, "the job went on without the service"
            assert ended.result is not None
            alone = RunRequest(recipe=train_recipe(), mixture=ended.result.path, sizes=SIZES)
            trained = client.wait(client.submit(alone)[0].id)
            assert trained.state == "succeeded", trained.failure
        assert httpx2.get(f"{gateway.url}/v1/builds").status_code == 401
    finally:
        assert gateway.end() == 0
    assert TOKEN not in gateway.log.read_text()
    cluster = RayCluster(ray_url, TOKEN, sys.executable)
    assert cluster.ready(), "the cluster is not the service's to end"
    actors = httpx2.get(f"{ray_url}/api/v0/actors", headers={"Authorization": f"Bearer {TOKEN}"}).json()
    trainers = [a for a in actors["data"]["result"]["result"] if a["class_name"] == "_Actor"]
    assert len(trainers) == 1, "Ray says where a run trains, be it of one worker"


def test_a_wrong_token_and_a_wrong_address_are_told(ray_url: str) -> None:
    with pytest.raises(Refused, match="Ray refuses the token"):
        RayCluster(ray_url, "0" * 64, sys.executable).session()
    with pytest.raises(Unreachable, match="does not answer"):
        RayCluster("http://127.0.0.1:1", TOKEN, sys.executable).session()
