"""From raw text to a traced report over HTTP, with real work behind it."""

from __future__ import annotations

import itertools
import json
import random
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from processes import Processes, make_dispatcher
from test_http import pointers, problem
from work_fixtures import data_recipe, eval_recipe, train_recipe, write_raw

from gateway.artifacts import metrics_thinned
from gateway.ledger.database import open_database
from manifest.artifact import open_artifact, open_streams
from manifest.identity import content_id
from manifest.store import open_store

SIZES = {
    "shared": {"tiny": {"layers": 1, "width": 16, "heads": 2, "filter": 32}},
    "tiny": {"wide": {"layers": 1, "width": 32, "heads": 2, "filter": 64}},
}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory, module_http: Callable[..., TestClient]) -> Iterator[TestClient]:
    """The app, with a dispatcher over processes at work behind it."""
    home = tmp_path_factory.mktemp("service")
    write_raw(home / "raw")
    database = open_database(f"sqlite:///{home}/ledger.db")
    cluster = Processes()
    dispatcher = make_dispatcher(database, cluster, home)
    thread = threading.Thread(target=dispatcher.run)
    thread.start()
    yield module_http(home, database, dispatcher)
    dispatcher.stop.set()
    thread.join()
    cluster.close()
    database.close()


def done(client: TestClient, answer: Any, state: str = "succeeded") -> Any:
    """The entry that an answer is of, once it has ended."""
    assert answer.status_code in (200, 201), answer.text
    entry = answer.json()
    end = time.monotonic() + 120
    while entry["state"] not in ("succeeded", "failed", "cancelled"):
        assert time.monotonic() < end, entry
        time.sleep(0.1)
        entry = client.get(f"/v1/{entry['kind']}s/{entry['id']}").json()
    assert entry["state"] == state, entry["failure"]
    return entry


@pytest.fixture(scope="module")
def mixture(client: TestClient) -> str:
    build = done(client, client.post("/v1/builds", json={"recipe": data_recipe(), "raw": "."}))
    return str(build["result"]["path"])


@contextmanager
def nothing_begins(client: TestClient) -> Iterator[None]:
    """What is asked for within waits until its end, as it does while Ray is away."""
    dispatcher: Any = client.app.state.service.dispatcher  # type: ignore[attr-defined]
    dispatcher.cluster.up = False
    while dispatcher.ray_is_up:  # until a turn has seen it
        time.sleep(0.01)
    yield
    dispatcher.cluster.up = True


@pytest.fixture(scope="module")
def runs(client: TestClient, mixture: str) -> list[dict[str, Any]]:
    """Two arms of a group; both are asked for before the first has begun."""
    body = {"recipe": train_recipe(), "mixture": mixture, "sizes": SIZES, "group": "arms"}
    with nothing_begins(client):
        asked = [client.post("/v1/runs", json={**body, "size": size}) for size in ("tiny", "wide")]
    return [done(client, answer) for answer in asked]


def test_a_run_trains_and_its_measurements_can_be_read(client: TestClient, runs: list[dict[str, Any]]) -> None:
    run = runs[0]
    assert run["result"]["kind"] == "checkpoint"
    assert run["result"]["path"].startswith(f"{run['path']}/checkpoints/")
    everything = client.get(f"/v1/runs/{run['id']}/metrics").json()
    steps = [row["step"] for row in everything["rows"]]
    assert steps == list(range(len(steps)))
    assert everything["next_step"] == len(steps) > 2
    rest = client.get(f"/v1/runs/{run['id']}/metrics", params={"from_step": 2}).json()
    assert rest["rows"] == everything["rows"][2:]
    nothing = client.get(f"/v1/runs/{run['id']}/metrics", params={"from_step": 10**6}).json()
    assert nothing == {"rows": [], "next_step": 10**6}


def test_a_run_starts_from_another_ones_checkpoint(
    client: TestClient, mixture: str, runs: list[dict[str, Any]]
) -> None:
    checkpoint = runs[0]["result"]["path"]
    body = {"recipe": train_recipe(start_from=checkpoint, size=None), "mixture": mixture}
    begun = done(client, client.post("/v1/runs", json=body))
    tree = client.get(f"/v1/lineage/{begun['result']['id']}").json()
    assert ("checkpoint", runs[0]["result"]["id"]) in [(child["kind"], child["id"]) for child in tree["children"]]


@pytest.mark.parametrize("place", ["/etc", "runs/none", "../elsewhere"])
def test_a_run_starts_from_nothing_outside_the_store_and_the_roots(
    client: TestClient, mixture: str, place: str
) -> None:
    body = {"recipe": train_recipe(start_from=place), "mixture": mixture, "sizes": SIZES}
    refused = client.post("/v1/runs", json=body)
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["pointer"] == "/recipe/start_from"


@pytest.mark.parametrize("rows", [0, 1, 7, 20, 21, 1000])
def test_a_long_run_is_thinned_but_for_its_lowest_and_its_last_row(tmp_path: Path, rows: int) -> None:
    losses = [random.Random(i).random() for i in range(rows)]
    (tmp_path / "runs" / "r").mkdir(parents=True)
    lines = [json.dumps({"step": step, "loss": loss}) + "\n" for step, loss in enumerate(losses)]
    (tmp_path / "runs" / "r" / "metrics.jsonl").write_text("".join(lines) + '{"step": 10')
    found = metrics_thinned(open_store(tmp_path), "runs/r", 10)
    steps = [row["step"] for row in found]
    assert steps == sorted(set(steps))
    assert len(steps) <= min(rows, 22)
    assert len(steps) >= min(rows, 10)
    if rows:
        assert {0, rows - 1, losses.index(min(losses))} <= set(steps)
        gaps = [b - a for a, b in itertools.pairwise(steps)]
        assert max(gaps, default=0) <= max(1, rows / 10)


def test_arms_of_a_group_share_a_job(runs: list[dict[str, Any]]) -> None:
    tiny, wide = runs
    assert tiny["job"] == wide["job"]
    assert tiny["path"] != wide["path"]
    assert (tiny["attempt"], wide["attempt"]) == (1, 1)


def test_events_go_through_every_state_in_order(client: TestClient, runs: list[dict[str, Any]]) -> None:
    text = client.get(f"/v1/runs/{runs[0]['id']}/events").text
    told = [json.loads(line.removeprefix("data: ")) for line in text.splitlines() if line.startswith("data: ")][:-1]
    states = [event["state"] for event in told if event["type"] == "state"]
    assert states == ["queued", "planning", "running", "publishing", "succeeded"]
    assert [event["seq"] for event in told] == list(range(1, len(told) + 1))
    trained = [event["progress"] for event in told if event["progress"] and event["progress"]["stage"] == "train"]
    assert trained[-1]["done"] == trained[-1]["total"]


def test_the_same_run_is_not_trained_twice(client: TestClient, mixture: str, runs: list[dict[str, Any]]) -> None:
    body = {"recipe": train_recipe(), "mixture": mixture, "sizes": SIZES, "size": "tiny"}
    again = client.post("/v1/runs", json=body)
    assert (again.status_code, again.json()["id"]) == (200, runs[0]["id"])
    by_id = client.get("/v1/mixtures").json()["items"][0]["id"]
    assert client.post("/v1/runs", json=body | {"mixture": by_id}).json()["id"] == runs[0]["id"]
    plan = client.post("/v1/runs", params={"dry_run": True}, json=body | {"seed": 7}).json()
    assert plan["same_as"] is None
    assert plan["path"] != runs[0]["path"]
    assert plan["plan"]["steps"] > 2
    dimensions = {"shared": {"tiny": {"layers": 2, "width": 16, "heads": 2, "filter": 32}}}
    other = client.post("/v1/runs", params={"dry_run": True}, json=body | {"sizes": dimensions}).json()
    assert other["same_as"] is None


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"mixture": "mixtures/none"}, "/mixture"),
        ({"mixture": "../mixtures"}, "/mixture"),
        ({"mixture": "/etc"}, "/mixture"),
        ({"size": "vast"}, "/size"),
        ({"sizes": {"shared": {"tiny": {"layers": -1}}}}, "/size"),
        ({"tokens": 0}, "/tokens"),
        ({"tokens": 10**400}, "/tokens"),
        ({"seed": -1}, "/seed"),
        ({"group": "a b"}, "/group"),
        ({"recipe": {"name": "tiny"}}, "/recipe/phases"),
        ({"recipe": {"name": "../x", "phases": {}}}, "/recipe/name"),
    ],
)
def test_a_run_that_cannot_be_is_told_by_its_field(
    client: TestClient, mixture: str, changes: dict[str, Any], pointer: str
) -> None:
    body = {"recipe": train_recipe(), "mixture": mixture, "sizes": SIZES, **changes}
    assert pointer in pointers(client.post("/v1/runs", json=body))


def test_a_recipe_with_other_phases_than_its_mixture_is_refused(client: TestClient, mixture: str) -> None:
    recipe = train_recipe()
    recipe["phases"]["second"] = recipe["phases"]["only"]
    found = problem(client.post("/v1/runs", json={"recipe": recipe, "mixture": mixture, "sizes": SIZES}), 422)
    assert "second" in found["detail"]


@pytest.fixture(scope="module")
def report(client: TestClient, runs: list[dict[str, Any]]) -> Any:
    """Of the second arm, compared with the first."""
    body = {"recipe": eval_recipe()}
    first = done(client, client.post("/v1/reports", json={**body, "checkpoint": runs[0]["result"]["path"]}))
    second = {**body, "checkpoint": runs[1]["path"], "compare_to": first["id"]}
    assert client.post("/v1/reports", json={**body, "checkpoint": runs[0]["id"]}).json()["id"] == first["id"]
    plan = client.post("/v1/reports", params={"dry_run": True}, json=second).json()
    assert plan["checkpoint"]["path"] == runs[1]["result"]["path"]
    return done(client, client.post("/v1/reports", json=second))


def test_a_report_can_be_read_and_traced_to_raw_files(client: TestClient, report: dict[str, Any]) -> None:
    page = client.get(f"/v1/reports/{report['id']}/page")
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "bits" in page.text
    for name in re.findall(r'href="([^"#:/]+)"', page.text):
        assert client.get(f"/v1/reports/{report['id']}/{name}").status_code == 200, name
    for name in ("other.md", "manifest.json.bak", "..%2fmanifest.json"):
        assert client.get(f"/v1/reports/{report['id']}/{name}").status_code in (404, 422), name
    made = report["result"]
    for reference in (made["path"], made["id"], made["id"][:12], report["id"]):
        tree = client.get(f"/v1/lineage/{reference}").json()
        assert tree["id"] == report["result"]["id"]
    assert {node["name"] for node in _raw_nodes(tree)} == {"a/0.jsonl", "b/0.jsonl"}


def _raw_nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if node["kind"] == "raw":
        yield node
    for child in node["children"]:
        yield from _raw_nodes(child)


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"checkpoint": "runs/none"}, "/checkpoint"),
        ({"checkpoint": "runs/none/checkpoints/00000001"}, "/checkpoint"),
        ({"checkpoint": "mixtures/none"}, "/checkpoint"),
        ({"compare_to": "reports/none"}, "/compare_to"),
        ({"recipe": {"name": "e", "tasks": ["bits_per_bite"]}}, "/recipe/tasks"),
        ({"recipe": {"name": "e", "tasks": ["bits_per_byte"], "compare_to": "reports/x"}}, "/recipe/compare_to"),
    ],
)
def test_a_report_that_cannot_be_is_told_by_its_field(
    client: TestClient, runs: list[dict[str, Any]], changes: dict[str, Any], pointer: str
) -> None:
    body = {"recipe": eval_recipe(), "checkpoint": runs[0]["path"], **changes}
    assert pointer in pointers(client.post("/v1/reports", json=body))


def test_mixtures_are_listed_and_shown(client: TestClient, mixture: str) -> None:
    page = client.get("/v1/mixtures").json()
    (listed,) = page["items"]
    assert (listed["path"], listed["phases"], listed["manifest"]) == (mixture, ["only"], None)
    for reference in (mixture, mixture.removeprefix("mixtures/"), listed["id"]):
        assert client.get(f"/v1/mixtures/{reference}").json()["manifest"]["id"] == listed["id"]
    problem(client.get("/v1/mixtures/none"), 404)
    problem(client.get(f"/v1/lineage/{mixture}/../../../etc"), 404)


def test_a_document_is_traced_to_the_steps_that_read_it(
    client: TestClient, mixture: str, runs: list[dict[str, Any]]
) -> None:
    store = client.app.state.service.store  # type: ignore[attr-defined]
    stream = next(iter(open_streams(open_artifact(store.where(mixture))).values()))
    document = next(iter(stream.spans(0, 1))).document
    found = client.get(f"/v1/documents/{document}/exposure").json()
    assert found["document"] == document
    assert {run["run"] for run in found["runs"]} >= {run["path"].removeprefix("runs/") for run in runs}
    assert any(phase["tokens"] for run in found["runs"] for phase in run["phases"])
    nobody = client.get("/v1/documents/a:nobody/exposure").json()
    assert all(not any(holding["streams"].values()) for holding in nobody["mixtures"])


def test_what_has_gone_from_the_store_is_built_again_when_asked_for(client: TestClient) -> None:
    store = client.app.state.service.store  # type: ignore[attr-defined]
    body = {"recipe": data_recipe("gone"), "raw": ".", "options": {"until": "documents"}}
    first = done(client, client.post("/v1/builds", json=body))
    paths = [first["result"]["path"], *first["result"]["also"]]
    assert len(paths) == 2
    shutil.rmtree(store.root / paths[1])
    again = client.post("/v1/builds", json=body)
    assert (again.json()["id"], again.json()["state"]) == (first["id"], "queued")
    second = done(client, again)
    assert second["result"] == first["result"]
    assert (store.root / paths[1]).is_dir()


def test_a_build_is_decontaminated_and_what_was_found_is_told_and_traced(client: TestClient) -> None:
    raw = Path(client.app.state.service.settings.home) / "raw"  # type: ignore[attr-defined]
    quoted = json.loads((raw / "a" / "0.jsonl").read_text().splitlines()[5])["text"]
    quiz = raw / "quiz" / "quiz.jsonl"
    quiz.parent.mkdir()
    items = [{"question": " ".join(quoted.split()[10:30])}, {"question": " ".join(["nothing", "of", "this"] * 6)}]
    quiz.write_text("".join(json.dumps(item) + "\n" for item in items))
    against = {"quiz": {"files": "quiz/*", "fields": "question"}}
    recipe = data_recipe("clean", holdout={"fraction": 0}, decontaminate={"against": against})
    body = {"recipe": recipe, "raw": "."}
    build = done(client, client.post("/v1/builds", json=body))

    path = build["result"]["path"]
    told = client.get(f"/v1/mixtures/{path}").json()["manifest"]["summary"]["contamination"]
    assert (told["action"], told["documents"]) == ("remove", 1)
    found = told["evaluations"]["quiz"]
    assert (found["items"], found["found"], found["sources"]["a"]["documents"]) == (2, 1, 1)
    seen = client.get(f"/v1/documents/{content_id('a', quoted)}/exposure").json()
    assert {m["mixture"]: m["streams"] for m in seen["mixtures"]}["clean"] == {}, "it has left training"
    assert "quiz.jsonl" in json.dumps(client.get(f"/v1/lineage/{path}").json())

    assert client.post("/v1/builds", json=body).json()["id"] == build["id"]
    quiz.write_text(json.dumps({"question": "other words, and so another build"}) + "\n")
    assert client.post("/v1/builds", json=body).json()["id"] != build["id"]


def test_evaluation_files_that_are_not_under_a_root_are_refused(client: TestClient, tmp_path: Path) -> None:
    (tmp_path / "quiz.jsonl").write_text("{}\n")
    against = {"quiz": {"files": f"./../{tmp_path}/quiz.jsonl", "fields": "question"}}
    body = {"recipe": data_recipe(decontaminate={"against": against}), "raw": "."}
    assert pointers(client.post("/v1/builds", json=body)) == ["/recipe/decontaminate/against"]
