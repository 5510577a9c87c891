"""Builds over HTTP: asking, asking again, looking, cancelling, following; and whatever a client may do wrong."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import func, select
from work_fixtures import data_recipe, write_raw

from gateway.ledger import answers, entries
from gateway.ledger.database import Database
from gateway.ledger.tables import EntryRow, RequestRow

JSON = {"Content-Type": "application/json"}


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return write_raw(tmp_path / "raw")


@pytest.fixture
def client(http: Callable[..., TestClient], raw: Path) -> TestClient:
    return http()


def ask(client: TestClient, raw: Path, name: str = "tiny", **headers: str) -> Any:
    body = {"recipe": data_recipe(name), "raw": str(raw)}
    return client.post("/v1/builds", json=body, headers={key.replace("_", "-"): v for key, v in headers.items()})


def problem(answer: Any, status: int) -> dict[str, Any]:
    """The problem that an answer is."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    found: dict[str, Any] = answer.json()
    assert found["status"] == status
    assert found["title"]
    assert found["detail"]
    return found


def pointers(answer: Any) -> list[str]:
    return [error["pointer"] for error in problem(answer, 422)["errors"]]


def test_a_build_is_made_once_however_often_it_is_asked_for(client: TestClient, raw: Path) -> None:
    first, second = ask(client, raw), ask(client, raw)
    assert (first.status_code, second.status_code) == (201, 200)
    build = first.json()
    assert second.json() == build
    assert first.headers["location"] == second.headers["location"] == f"/v1/builds/{build['id']}"
    assert client.get(first.headers["location"]).json() == build
    assert (build["state"], build["attempt"], build["created_by"]) == ("queued", 0, "local")
    assert ask(client, raw, "other").json()["id"] != build["id"]


def test_a_label_changes_nothing_but_what_is_shown(client: TestClient, raw: Path) -> None:
    body = {"recipe": data_recipe(), "raw": str(raw)}
    first, second = (client.post("/v1/builds", json=body | {"label": label}) for label in ("mine", "yours"))
    assert (first.status_code, second.status_code) == (201, 200)
    assert second.json()["id"] == first.json()["id"]
    assert second.json()["request"]["label"] == "mine"


def test_other_raw_files_are_another_build(client: TestClient, raw: Path) -> None:
    first = ask(client, raw).json()
    (raw / "a" / "1.jsonl").write_text('{"text": "more of it"}\n')
    assert ask(client, raw).json()["id"] != first["id"]


def test_a_dry_run_says_what_there_is_and_writes_nothing(client: TestClient, raw: Path, database: Database) -> None:
    body = {"recipe": data_recipe(), "raw": "."}
    plan = client.post("/v1/builds?dry_run=true", json=body)
    assert plan.status_code == 200
    found = plan.json()
    assert (found["documents"], found["exact"], found["same_as"]) == (60 + 75, True, None)
    assert found["bytes"] == sum(file.stat().st_size for file in raw.glob("*/*"))
    assert set(found["sources"]) == {"a", "b"}
    with database.read() as session:
        assert session.scalar(select(func.count()).select_from(EntryRow)) == 0
    build = ask(client, raw).json()
    assert client.post("/v1/builds?dry_run=true", json=body).json()["same_as"] == build["id"]


@pytest.mark.parametrize(
    ("changes", "pointer", "said"),
    [
        ({"dedup": {"treshold": 0.8}}, "/recipe/dedup/treshold", "did you mean 'threshold'"),
        ({"dedup": {"threshold": 1.5}}, "/recipe/dedup/threshold", "less than 1"),
        ({"sources": {"a": {"files": "../a/*"}}}, "/recipe/sources/a/files", "is not below"),
        ({"sources": {"a": {"files": "none/*"}}}, "/recipe/sources", "no file matches 'none/*'"),
        ({"tokenizer": {"path": "/etc/passwd"}}, "/recipe/tokenizer/path", "not under a configured root"),
        (
            {"tokenizer": {"extend": {"base": "/etc", "add": 9, "on": ["a"]}}},
            "/recipe/tokenizer/extend/base",
            "not under a configured root",
        ),
        (
            {"tokenizer": {"replace": {"add": 9, "on": ["a"]}}},
            "/recipe/tokenizer/replace/base",
            "tokenizer.replace.base is missing",
        ),
        ({"block_tokens": "many"}, "/recipe/block_tokens", ""),
        ({"phases": {"only": {"epochs": {"c": 1}}}}, "/recipe", "c"),
    ],
)
def test_a_recipe_that_does_not_validate_is_told_by_its_field(
    client: TestClient, raw: Path, changes: dict[str, Any], pointer: str, said: str
) -> None:
    recipe = data_recipe(**changes)
    if "sources" in changes:
        recipe["phases"] = {"only": {"epochs": {"a": 1}}}
    found = problem(client.post("/v1/builds", json={"recipe": recipe, "raw": str(raw)}), 422)
    (error,) = [error for error in found["errors"] if error["pointer"] == pointer]
    assert said in error["detail"]


def test_a_tokenizer_may_lie_in_the_services_own_store(client: TestClient, raw: Path, tmp_path: Path) -> None:
    for place, name in (("tokenizers/bpe-1", "tokenizer.json"), ("mixtures/base-1", "manifest.json")):
        directory = tmp_path / "store" / place
        directory.mkdir(parents=True)
        (directory / name).write_text("{}")
        recipe = data_recipe(tokenizer={"extend": {"base": str(directory), "add": 9, "on": ["a"]}})
        assert client.post("/v1/builds", json={"recipe": recipe, "raw": str(raw)}).status_code == 201


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/recipe"),
        ({"recipe": [], "raw": "."}, "/recipe"),
        ({"recipe": {}, "raw": 5}, "/raw"),
        ({"recipe": {}, "raw": "."}, "/recipe/name"),
        ({"recipe": {}, "raw": ".", "row": 1}, "/row"),
        ({"recipe": data_recipe(), "raw": ".", "options": {"workers": 0}}, "/options/workers"),
        ({"recipe": data_recipe(), "raw": ".", "options": {"workers": 10**30}}, "/options/workers"),
        ({"recipe": data_recipe(), "raw": ".", "options": {"until": "tokns"}}, "/options/until"),
        ({"recipe": data_recipe(), "raw": "/etc"}, "/raw"),
        ({"recipe": data_recipe(), "raw": "../.."}, "/raw"),
        ({"recipe": data_recipe(), "raw": "s3://else/where"}, "/raw"),
        ({"recipe": data_recipe(), "raw": "file:///etc"}, "/raw"),
        ({"recipe": data_recipe(), "raw": "a\x00b"}, "/raw"),
        ({"recipe": {"a~b/c": 1}, "raw": "."}, "/recipe/a~0b~1c"),
        ({"recipe": data_recipe(), "raw": ".", "label": ""}, "/label"),
        ({"recipe": data_recipe(), "raw": ".", "label": "two\nlines"}, "/label"),
    ],
)
def test_what_is_wrong_in_a_request_is_told_by_its_pointer(
    client: TestClient, body: dict[str, Any], pointer: str
) -> None:
    assert pointer in pointers(client.post("/v1/builds", json=body))


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"recipe": ', 400),
        (b"", 422),
        (b"\xff\xfe\x00", 400),
        (b"[" * 100_000, 400),
        (b'{"recipe": {"name": "\\ud800"}, "raw": "\\ud800"}', 422),
        (b'{"recipe": {"name": "x", "block_tokens": 1e999}, "raw": "."}', 422),
        (b'{"recipe": {"name": "x", "block_tokens": NaN}, "raw": "."}', 422),
        (b"null", 422),
        (b"[]", 422),
        (b'"text"', 422),
        (b'{"recipe": {}, "raw": "."}' + b" " * (1 << 20), 413),
    ],
)
def test_a_body_that_cannot_be_read_is_a_problem(client: TestClient, body: bytes, status: int) -> None:
    problem(client.post("/v1/builds", content=body, headers=JSON), status)


def test_a_body_that_is_sent_in_pieces_is_limited_too(client: TestClient) -> None:
    pieces = iter([b" " * 400_000] * 10)
    problem(client.post("/v1/builds", content=pieces, headers=JSON), 413)


@pytest.mark.parametrize("sent", ["text/plain", "application/x-www-form-urlencoded", "application/xml"])
def test_a_body_that_is_not_json_is_415(client: TestClient, sent: str) -> None:
    problem(client.post("/v1/builds", content=b"{}", headers={"Content-Type": sent}), 415)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/nothing", 404),
        ("GET", "/v1/builds/build-00", 404),
        ("GET", "/v1/builds/run-00/log", 404),
        ("GET", "/v1/builds/..%2f..%2fetc", 404),
        ("GET", "/v1/builds/x", 422),
        ("GET", "/v1/builds/build-00/events", 404),
        ("POST", "/v1/builds/build-00:cancel", 404),
        ("POST", "/v1/builds/build-00:explode", 404),
        ("GET", "/v1/builds?limit=0", 422),
        ("GET", "/v1/builds?limit=201", 422),
        ("GET", "/v1/builds?state=dead", 422),
        ("GET", "/v1/reports/report-00/page", 404),
        ("GET", "/v1/runs/run-00/metrics", 404),
        ("GET", "/v1/mixtures/..%2f..%2fetc%2fpasswd", 404),
        ("GET", "/v1/mixtures/.drafts", 404),
        ("GET", "/v1/lineage/../../etc", 404),
        ("GET", "/v1/lineage/%00", 404),
        ("GET", "/v1/lineage/mixtures/%ff%fe", 404),
        ("DELETE", "/v1/builds", 405),
        ("PATCH", "/v1/builds/build-00", 405),
        ("GET", "/v1/builds/build-00:cancel", 405),
    ],
)
def test_what_is_not_there_is_a_problem(client: TestClient, method: str, path: str, status: int) -> None:
    answer = client.request(method, path)
    if path == "/v1/builds/build-00:explode" or path == "/v1/builds/build-00:cancel":
        status = answer.status_code  # of the router: any problem of the client's will do
        assert 400 <= status < 500
    problem(answer, status)
    assert (status == 405) == ("allow" in answer.headers)


def test_a_cursor_that_nobody_gave_is_an_end_and_not_an_error(client: TestClient, raw: Path) -> None:
    ask(client, raw)
    for cursor in ("x", "", "\u2603", "%00", "' OR 1=1", "~"):
        answer = client.get("/v1/builds", params={"cursor": cursor})
        assert answer.status_code in (200, 422), answer.text


def test_pages_hold_every_build_once_newest_first(client: TestClient, raw: Path) -> None:
    made = [ask(client, raw, f"b{i}").json()["id"] for i in range(7)]
    seen: list[str] = []
    cursor = None
    while True:
        page = client.get("/v1/builds", params={"limit": 3} | ({"cursor": cursor} if cursor else {})).json()
        seen += [build["id"] for build in page["items"]]
        cursor = page["next"]
        if cursor is None:
            break
    assert seen == made[::-1]
    client.post(f"/v1/builds/{made[2]}:cancel")
    states = [("state", "cancelled"), ("state", "failed")]
    assert [b["id"] for b in client.get("/v1/builds", params=states).json()["items"]] == [made[2]]


def test_a_key_makes_the_second_time_the_first(client: TestClient, raw: Path, database: Database) -> None:
    first, second = (ask(client, raw, Idempotency_Key="k") for _ in range(2))
    assert (first.status_code, second.status_code) == (201, 201)
    assert first.json() == second.json()
    assert "idempotency-replayed" not in first.headers
    assert second.headers["idempotency-replayed"] == "true"
    found = problem(ask(client, raw, "other", Idempotency_Key="k"), 422)
    assert "came with another request before" in found["detail"]
    problem(ask(client, raw, Idempotency_Key="k" * 256), 422)
    with database.write() as session:
        (kept,) = session.scalars(select(RequestRow))
        kept.created -= answers.KEPT_S + 1
    assert ask(client, raw, "other", Idempotency_Key="k").status_code == 201


def test_a_cancel_that_is_sent_twice_with_a_key_succeeds_twice(client: TestClient, raw: Path) -> None:
    path = f"/v1/builds/{ask(client, raw).json()['id']}:cancel"
    first, second = (client.post(path, headers={"Idempotency-Key": "c"}) for _ in range(2))
    assert (first.status_code, second.status_code) == (200, 200)
    assert second.json()["state"] == "cancelled"
    found = problem(client.post(path), 409)
    assert found["detail"].endswith("has ended: it was cancelled; there is nothing to cancel")


def test_retry_queues_what_was_cancelled_and_nothing_else(client: TestClient, raw: Path) -> None:
    build = ask(client, raw).json()["id"]
    assert "has not ended: it is queued" in problem(client.post(f"/v1/builds/{build}:retry"), 409)["detail"]
    client.post(f"/v1/builds/{build}:cancel")
    assert client.post(f"/v1/builds/{build}:retry").json()["state"] == "queued"
    client.post(f"/v1/builds/{build}:cancel")
    assert ask(client, raw).json()["state"] == "queued"


@pytest.mark.parametrize("key", [None, "one"])
def test_many_at_once_are_one(client: TestClient, raw: Path, database: Database, key: str | None) -> None:
    headers = {"Idempotency_Key": key} if key else {}
    together = threading.Barrier(8)

    def post(_: int) -> Any:
        together.wait()
        return ask(client, raw, **headers)

    with ThreadPoolExecutor(8) as threads:
        answers_ = list(threads.map(post, range(8)))
    assert {answer.json()["id"] for answer in answers_} == {answers_[0].json()["id"]}
    assert sorted(answer.status_code for answer in answers_) == ([201] * 8 if key else [200] * 7 + [201])
    with database.read() as session:
        assert session.scalar(select(func.count()).select_from(EntryRow)) == 1


def test_a_replay_does_not_look_at_the_raw_files_again(client: TestClient, raw: Path) -> None:
    first = ask(client, raw, Idempotency_Key="k")
    shutil.rmtree(raw / "a")
    assert ask(client, raw, Idempotency_Key="k").json() == first.json()
    problem(ask(client, raw), 422)


@pytest.mark.parametrize(
    ("changes", "raw_place", "pointer"),
    [
        ({}, "x" * 1000, "/raw"),
        ({}, "\u2603" * 300, "/raw"),
        ({"tokenizer": {"path": "ROOT/" + "x" * 400}}, ".", "/recipe/tokenizer/path"),
        ({"block_tokens": "9" * 4299 + "T"}, ".", "/recipe/block_tokens"),
        ({"block_tokens": 10**400}, ".", "/recipe/block_tokens"),
        ({"seed": 10**4000}, ".", "/recipe/seed"),
        ({"sources": {"a": {"files": "a/*", "text": "\ud800"}}}, ".", "/recipe/sources"),
        ({"sources": {"a": {"files": "out/*"}}}, ".", "/recipe/sources"),
        ({"sources": {"a": {"files": "names/*"}}}, ".", "/recipe/sources"),
    ],
)
def test_what_the_system_would_stumble_over_is_told_by_its_field(
    client: TestClient, raw: Path, changes: dict[str, Any], raw_place: str, pointer: str
) -> None:
    (raw.parent / "elsewhere").mkdir()
    (raw.parent / "elsewhere" / "x.jsonl").write_text('{"text": "secret"}')
    (raw / "out").symlink_to(raw.parent / "elsewhere")
    (raw / "names").mkdir()
    Path(os.fsdecode(bytes(raw / "names") + b"/\xff.jsonl")).touch()
    recipe = json.loads(json.dumps(data_recipe(**changes)).replace("ROOT", str(raw)))
    if "sources" in changes:
        recipe["phases"] = {"only": {"epochs": {"a": 1}}}
    for query in ("", "?dry_run=true"):
        body = json.dumps({"recipe": recipe, "raw": raw_place})
        answer = client.post(f"/v1/builds{query}", content=body, headers=JSON)
        assert pointer in pointers(answer)


def test_a_damaged_mixture_does_not_hide_the_others(client: TestClient, tmp_path: Path) -> None:
    damaged = tmp_path / "store" / "mixtures" / "damaged"
    damaged.mkdir(parents=True)
    (damaged / "manifest.json").write_text("{")
    assert client.get("/v1/mixtures").json() == {"items": [], "next": None}
    assert client.get("/").status_code == 200
    problem(client.get("/v1/mixtures/0123456789abcdef"), 404)
    problem(client.get("/v1/mixtures/damaged"), 404)
    problem(client.get("/v1/mixtures/" + "x" * 5000), 422)
    assert client.get("/mixtures/" + "x" * 5000).status_code == 404


def events_of(text: str) -> list[tuple[str, str, dict[str, Any]]]:
    found = []
    for block in text.replace("\r\n", "\n").split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line and not line.startswith(":"))
        if "data" in fields:
            found.append((fields["event"], fields["id"], json.loads(fields["data"])))
    return found


def test_events_are_told_from_any_number_on_and_end(client: TestClient, raw: Path) -> None:
    build = ask(client, raw).json()["id"]
    client.post(f"/v1/builds/{build}:cancel")
    path = f"/v1/builds/{build}/events"
    answer = client.get(path)
    assert answer.headers["content-type"].startswith("text/event-stream")
    told = events_of(answer.text)
    assert [(kind, number) for kind, number, _ in told] == [("state", "1"), ("state", "2"), ("end", "2")]
    assert [event["state"] for _, _, event in told] == ["queued", "cancelled", "cancelled"]
    assert told[-1][2]["id"] == build
    resumed = events_of(client.get(path, headers={"Last-Event-ID": "1"}).text)
    assert [number for _, number, _ in resumed] == ["2", "2"]
    assert [kind for kind, _, _ in events_of(client.get(path, params={"after": 2}).text)] == ["end"]
    problem(client.get(path, headers={"Last-Event-ID": "x"}), 422)
    problem(client.get(path, params={"after": -1}), 422)


def test_the_log_is_read_from_where_the_last_reading_ended(
    client: TestClient, raw: Path, database: Database, tmp_path: Path
) -> None:
    build = ask(client, raw).json()["id"]
    path = f"/v1/builds/{build}/log"
    assert client.get(path).json() == {"text": "", "next_offset": 0, "attempt": 0}
    with database.write() as session:
        now = database.now(session)
        from gateway.ledger import leases

        (job,) = leases.admit(session, now, owner="me", lease_s=9, cpus=2)
        row = entries.find(session, "build", build)
        assert row is not None
    (tmp_path / "jobs" / job).mkdir(parents=True)
    (tmp_path / "jobs" / job / "log").write_bytes("größer\n".encode())
    first = client.get(path).json()
    assert first == {"text": "größer\n", "next_offset": 9, "attempt": 1}
    assert client.get(path, params={"offset": 9}).json()["text"] == ""
    problem(client.get(path, params={"offset": -1}), 422)
