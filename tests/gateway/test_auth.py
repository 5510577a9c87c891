"""Keys, scopes, and who may ask without one."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from fastapi.testclient import TestClient

from gateway.auth import SESSION_COOKIE
from gateway.ledger import keys
from gateway.ledger.database import Database
from gateway.ledger.tables import KeyRow
from gateway.settings import Settings
from manifest.errors import InputError

Http = Callable[..., TestClient]


def new_key(database: Database, *scopes: str, name: str = "someone") -> str:
    with database.write() as session:
        return keys.add(session, database.now(session), name, scopes)


def with_key(http: TestClient, key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def test_a_key_is_not_in_the_ledger(database: Database) -> None:
    key = new_key(database, "read")
    assert re.fullmatch(r"wk_[0-9a-f]{12}_[0-9a-f]{64}", key)
    with database.read() as session:
        row = session.query(KeyRow).one()
        held = " ".join(str(value) for value in vars(row).values())
    assert key.rpartition("_")[2] not in held


def test_a_key_opens_what_its_scopes_say(http: Http, database: Database) -> None:
    client = http(keys=True)
    reader, builder, admin = (new_key(database, *scopes) for scopes in (["read"], ["read", "build"], ["admin"]))
    for key, path, status in (
        (reader, "/v1/builds", 422),
        (builder, "/v1/builds", 422),
        (builder, "/v1/runs", 403),
        (admin, "/v1/runs", 422),
    ):
        expected = 403 if key == reader else status
        answer = client.post(path, json={}, headers=with_key(client, key))
        assert answer.status_code == expected, (path, answer.text)
    assert client.get("/v1/runs", headers=with_key(client, builder)).status_code == 200
    refused = client.post("/v1/runs", json={}, headers=with_key(client, builder)).json()
    assert refused["detail"] == "the key of someone has the scopes build read; this needs train"


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer wk_x", "Basic abc", "Bearer wk_" + "0" * 12 + "_" + "0" * 64]
)
def test_without_a_valid_key_there_is_nothing(http: Http, header: str | None) -> None:
    client = http(keys=True)
    answer = client.get("/v1/builds", headers={"Authorization": header} if header is not None else {})
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.headers["content-type"] == "application/problem+json"
    assert client.get("/livez").status_code == 200


def test_a_revoked_key_is_refused_at_once(http: Http, database: Database) -> None:
    client = http(keys=True)
    key = new_key(database, "read")
    assert client.get("/v1/builds", headers=with_key(client, key)).status_code == 200
    with database.write() as session:
        (row,) = keys.listed(session)
        keys.revoke(session, database.now(session), row.id)
    assert client.get("/v1/builds", headers=with_key(client, key)).status_code == 401


@pytest.mark.parametrize(
    ("name", "scopes", "said"),
    [
        ("a", ["wirte"], "--scope wirte: expected"),
        ("a", [], "--scope"),
        ("", ["read"], "a key's name"),
        ("a\n", ["read"], "a key's name"),
    ],
)
def test_a_wrong_key_is_not_made(database: Database, name: str, scopes: list[str], said: str) -> None:
    with pytest.raises(InputError, match=re.escape(said)):
        new_key(database, *scopes, name=name)


def test_keyless_answers_to_loopback_names_only(http: Http) -> None:
    client = http()
    for host in ("127.0.0.1:8787", "localhost:1", "[::1]:80", "127.0.0.1"):
        assert client.get("/v1/builds", headers={"Host": host}).status_code == 200, host
    for host in ("winnow.example", "127.0.0.1.evil.example", "evil@127.0.0.1.example", "[", ""):
        assert client.get("/v1/builds", headers={"Host": host}).status_code == 403, host


def test_another_sites_page_is_refused(http: Http) -> None:
    client = http()
    assert client.post("/v1/builds", json={}, headers={"Origin": "http://evil.example"}).status_code == 403
    assert client.post("/v1/builds", json={}, headers={"Origin": "null"}).status_code == 403
    assert client.post("/v1/builds", json={}, headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
    assert client.post("/v1/builds", json={}, headers={"Origin": "http://127.0.0.1:8787"}).status_code == 422


def test_a_cookie_is_a_key_but_not_for_another_site(http: Http, database: Database) -> None:
    client = http(keys=True)
    client.cookies.set(SESSION_COOKIE, new_key(database, "read"))
    assert client.get("/v1/builds").status_code == 200
    assert client.get("/v1/builds", headers={"Origin": "http://evil.example"}).status_code == 403


@pytest.mark.parametrize(
    ("changes", "needs_key"),
    [
        ({}, False),
        ({"host": "localhost"}, False),
        ({"host": "0.0.0.0"}, True),
        ({"host": "192.168.1.5"}, True),
        ({"ray": "http://head:8265"}, True),
        ({"database": "postgresql://db/winnow"}, True),
        ({"database": "sqlite:///ledger.db"}, False),
        ({"keys": True}, True),
    ],
)
def test_keys_are_needed_anywhere_but_on_loopback_in_embedded_mode(changes: dict[str, object], needs_key: bool) -> None:
    assert Settings(**changes).needs_key is needs_key  # type: ignore[arg-type]
