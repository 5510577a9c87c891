"""`gateway serve` with a Ray of its own: what it starts, what a kill costs, and what it leaves behind."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from gateway_process import Gateway, all_gone
from tests.commands import ended
from work_fixtures import SIZES, data_recipe, train_recipe, write_raw

from gateway.client import Client
from gateway.messages import BuildOptions, BuildRequest, RunRequest
from gateway.serve import main


@pytest.fixture(scope="module")
def other_ray() -> Iterator[None]:
    """Somebody else's Ray on this machine, which has the ports that a Ray has by default."""
    code = (
        "import ray, sys; ray.init('local', num_cpus=1, object_store_memory=100_000_000, include_dashboard=False);"
        "print('up', flush=True); sys.stdin.read()"
    )
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled"}
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
    ) as process:
        assert process.stdout is not None
        while process.stdout.readline().strip() != "up":
            assert process.poll() is None
        yield  # leaving the block closes its stdin


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, other_ray: None) -> Iterator[Gateway]:
    base = tmp_path_factory.mktemp("serve")
    started = Gateway(base / "home", write_raw(base / "raw"))
    started.start()
    yield started
    if started.process.poll() is None:
        started.kill()


def ask_build(client: Client, name: str, workers: int = 1) -> str:
    request = BuildRequest(recipe=data_recipe(name), raw=".", options=BuildOptions(workers=workers))
    return client.submit(request)[0].id


def test_what_is_asked_for_while_ray_starts_is_done_on_it_by_several_workers(gateway: Gateway) -> None:
    with gateway.client() as client:
        build = client.wait(ask_build(client, "wide", workers=2))
        assert build.state == "succeeded", build.failure
        assert build.result is not None
        request = RunRequest(recipe=train_recipe(), mixture=build.result.path, sizes=SIZES, workers=2)
        run = client.wait(client.submit(request)[0].id)
        assert run.state == "succeeded", run.failure
        assert (build.attempt, run.attempt) == (1, 1)


def test_a_second_service_over_the_same_ledger_is_refused(gateway: Gateway) -> None:
    second = ended(main, *gateway.words, "--port", 0)
    assert (second.returncode, second.stdout) == (2, "")
    assert "another gateway runs over" in second.stderr


def test_another_home_does_not_make_it_another_ledger(gateway: Gateway, tmp_path: Path) -> None:
    database = f"sqlite:///{gateway.home / 'ledger.db'}"
    second = ended(main, "serve", "--home", tmp_path, "--port", 0, "--database", database)
    assert (second.returncode, second.stdout) == (2, "")
    assert "another gateway runs over" in second.stderr


def test_a_port_that_is_taken_is_told(gateway: Gateway, tmp_path: Path) -> None:
    second = ended(main, "serve", "--home", tmp_path, "--port", gateway.port)
    assert (second.returncode, second.stdout) == (2, "")
    assert f"--port {gateway.port}: Address already in use" in second.stderr


@pytest.mark.slow
def test_a_kill_of_the_service_and_of_ray_loses_nothing(gateway: Gateway) -> None:
    with gateway.client() as client:
        builds = [ask_build(client, f"killed{i}") for i in range(4)]
        until_started(client, builds[0])
        before = gateway.children()
        gateway.kill()
        assert all_gone(before), "a Ray outlives its service"
        gateway.start()
        until_started(client, builds[-1])
        assert gateway.kill_ray() == 2
        for build in builds:
            ended = client.wait(build)
            assert ended.state == "succeeded", ended.failure
            states = [event.state for event in client.events(build) if event.type == "state"]
            assert states.count("succeeded") == 1


def until_started(client: Client, build: str) -> None:
    end = time.monotonic() + 90
    while client.get(build).state == "queued":
        assert time.monotonic() < end
        time.sleep(0.05)


def test_at_its_end_nothing_is_left_running_and_streams_are_ended(gateway: Gateway) -> None:
    before = gateway.children()
    (Path(gateway.home).parent / "raw" / "a" / "more.jsonl").write_text('{"text": "of it"}\n')
    with gateway.client() as client:
        build = ask_build(client, "never", workers=2)
        client.cancel(build)
        client.wait(build)
        client.retry(build)
        url = f"{gateway.url}/v1/builds/{ask_build(client, 'followed')}/events"
        with httpx2.stream("GET", url) as stream:
            lines = stream.iter_lines()
            assert next(lines)
            assert gateway.end() == 0
            assert list(lines), "the stream ends as a stream does"
    assert all_gone(before, 5)
    assert "Traceback" not in gateway.log.read_text()


def test_keys_of_a_ledger_that_is_not_there_are_not_listed(tmp_path: Path) -> None:
    done = ended(main, "keys", "list", "--home", tmp_path / "typo")
    assert (done.returncode, done.stdout) == (2, "")
    assert "there is no ledger at" in done.stderr
    assert not (tmp_path / "typo").exists()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--port", "70000"], "--port: Input should be less than or equal to 65535 (found 70000)"),
        (["--database", "mysql://x/y"], "the ledger is kept in SQLite or PostgreSQL"),
        (["--database", "nonsense"], "is no database URL"),
        (["--database", "sqlite://"], "the ledger is to outlive the service; give a file"),
        (["--host", "192.0.2.1"], "--host 192.0.2.1"),
        (["--store", "gopher://x"], "the scheme 'gopher' is unknown"),
        (["--database", "postgresql://nobody@127.0.0.1:1/none"], "cannot be opened"),
    ],
)
def test_wrong_flags_end_with_2_and_a_line(tmp_path: Path, flags: list[str], said: str) -> None:
    done = ended(main, "serve", "--home", tmp_path / "home", *flags)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert said in line
    assert "Traceback" not in done.stderr
