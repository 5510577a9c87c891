"""Fifty builds on a real Ray, with the service killed five times and Ray once: all end, none is lost or doubled."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from gateway_process import Gateway, all_gone
from work_fixtures import data_recipe, write_raw

from gateway.client import Client
from gateway.ledger.states import ENDED
from gateway.messages import BuildRequest
from manifest.store import open_store

BUILDS = 50
KILLS = (5, 13, 21, 30, 40)
"""The service is killed when so many builds have ended."""
RAY_KILL = 26

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]


@pytest.fixture
def gateway(tmp_path: Path, database_url: str) -> Iterator[Gateway]:
    made = Gateway(tmp_path / "home", write_raw(tmp_path / "raw"), database_url)
    made.start()
    yield made
    if made.process.poll() is None:
        made.kill()


def test_kills_lose_and_double_nothing(gateway: Gateway) -> None:
    with gateway.client() as client:
        asked = [client.submit(BuildRequest(recipe=data_recipe(f"build{i:02}"), raw="."))[0].id for i in range(BUILDS)]
        assert len(set(asked)) == BUILDS
        _disturb(gateway, client)
        _all_final_none_doubled(gateway, client, asked)
    left = gateway.children()
    assert gateway.end() == 0
    assert all_gone(left)


def _disturb(gateway: Gateway, client: Client) -> None:
    """Kills until all builds have ended."""
    rng = random.Random(0)
    kills, ray_killed, ended = list(KILLS), False, 0
    while ended < BUILDS:
        ended = sum(build.state in ENDED for build in client.list("build"))
        if ended >= RAY_KILL and not ray_killed:
            ray_killed = gateway.kill_ray() > 0
        elif kills and ended >= kills[0]:
            time.sleep(rng.random() * 2)  # anywhere in the life of a build
            gateway.kill()
            gateway.start()
            kills.pop(0)
        time.sleep(0.5)
    assert (kills, ray_killed) == ([], True)


def _all_final_none_doubled(gateway: Gateway, client: Client, asked: list[str]) -> None:
    builds = list(client.list("build"))
    assert sorted(build.id for build in builds) == sorted(asked)
    assert Counter(build.state for build in builds) == {"succeeded": BUILDS}
    results = [build.result for build in builds if build.result is not None]
    assert len({result.id for result in results}) == BUILDS
    store = open_store(gateway.home / "store")
    assert sorted(f"mixtures/{name}" for name in store.list("mixtures")) == sorted(result.path for result in results)
    for build in builds:
        events = list(client.events(build.id))
        assert [event.seq for event in events] == list(range(1, len(events) + 1))
        assert Counter(event.state for event in events if event.type == "state")["succeeded"] == 1
