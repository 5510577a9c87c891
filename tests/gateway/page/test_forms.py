"""What the page's forms do, for whom, and how one logs in."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient
from tests.gateway.page.conftest import Ledger

from gateway.app import create_app
from gateway.ledger import keys

HERE = {"sec-fetch-site": "same-origin"}
HTMX = {**HERE, "hx-request": "true"}


def add_key(ledger: Ledger, *scopes: str) -> str:
    with ledger.service.database.write() as session:
        return keys.add(session, ledger.service.database.now(session), "ada", scopes)


def test_the_form_cancels(ledger: Ledger) -> None:
    waiting, running = ledger.ask(name="waiting"), ledger.ask(name="running")
    ledger.begin(running)
    client = ledger.client()
    answer = client.post(f"/page/builds/{waiting}/cancel", headers=HERE)
    assert (answer.status_code, answer.headers["location"]) == (303, f"/builds/{waiting}")
    assert ledger.state(waiting) == "cancelled"
    answer = client.post(f"/page/builds/{running}/cancel", headers=HTMX)
    assert (answer.status_code, answer.headers["hx-trigger"]) == (200, "ledger-changed")
    assert "running was asked to stop" in answer.text
    assert "stopping" in client.get(f"/page/builds/{running}").text


def test_the_form_tries_again_and_says_what_cannot_be_done(ledger: Ledger) -> None:
    build = ledger.ask()
    client = ledger.client()
    refused = client.post(f"/page/builds/{build}/retry", headers=HTMX)
    assert (refused.status_code, "has not ended" in refused.text) == (409, True)
    client.post(f"/page/builds/{build}/cancel", headers=HERE)
    assert client.post(f"/page/builds/{build}/retry", headers=HERE).status_code == 303
    assert ledger.state(build) == "queued"


@pytest.mark.parametrize(
    "headers", [{}, {"sec-fetch-site": "cross-site"}, {"sec-fetch-site": "none"}, {"origin": "https://elsewhere.test"}]
)
def test_a_form_of_another_site_does_nothing(ledger: Ledger, headers: dict[str, str]) -> None:
    build = ledger.ask()
    client = ledger.client()
    for path in (f"/page/builds/{build}/cancel", f"/page/builds/{build}/retry", "/session", "/session/end"):
        assert client.post(path, headers=headers).status_code == 403
    assert ledger.state(build) == "queued"


def test_a_browser_without_fetch_metadata_is_known_by_its_origin(ledger: Ledger) -> None:
    build = ledger.ask()
    answer = ledger.client().post(f"/page/builds/{build}/cancel", headers={"origin": "http://localhost:8787"})
    assert answer.status_code == 303


def test_one_logs_in_with_a_key_and_out_again(guarded: Ledger) -> None:
    build = guarded.ask()
    key = add_key(guarded, "read", "build")
    client = guarded.client()
    asked = client.get(f"/builds/{build}")
    assert (asked.status_code, "tiny" in asked.text) == (401, False)
    wrong = client.post("/session", data={"key": "wk_no", "to": "/"}, headers=HERE)
    assert (wrong.status_code, "not valid" in wrong.text) == (401, True)
    answer = client.post("/session", data={"key": f" {key}\n", "to": f"/builds/{build}"}, headers=HERE)
    assert (answer.status_code, answer.headers["location"]) == (303, f"/builds/{build}")
    assert {"httponly", "samesite=strict"} <= set(answer.headers["set-cookie"].lower().split("; "))
    assert "secure" not in answer.headers["set-cookie"].lower()
    assert "tiny" in client.get(f"/builds/{build}").text
    client.post("/session/end", headers=HERE)
    assert client.get("/").status_code == 401


def test_the_cookie_stays_on_https_where_it_was_given(guarded: Ledger) -> None:
    client = TestClient(create_app(guarded.service), base_url="https://winnow.test", follow_redirects=False)
    answer = client.post("/session", data={"key": add_key(guarded, "read"), "to": "/"}, headers=HERE)
    assert "secure" in answer.headers["set-cookie"].lower()


@pytest.mark.parametrize("to", ["https://elsewhere.test", "//elsewhere.test", "/\\elsewhere.test", "javascript:x", ""])
def test_logging_in_leads_nowhere_else(guarded: Ledger, to: str) -> None:
    answer = guarded.client().post("/session", data={"key": add_key(guarded, "read"), "to": to}, headers=HERE)
    assert answer.headers["location"] == "/"


def test_a_session_that_has_ended_loads_the_page_again(guarded: Ledger) -> None:
    answer = guarded.client().get("/page/now")
    assert (answer.status_code, answer.headers["hx-refresh"]) == (401, "true")


def test_a_key_does_what_its_scopes_say(guarded: Ledger) -> None:
    build, run = guarded.ask(), guarded.ask("run", path="runs/tiny-1")
    client = guarded.client()
    client.post("/session", data={"key": add_key(guarded, "read", "train"), "to": "/"}, headers=HERE)
    overview = client.get("/").text
    assert f"/page/builds/{build}/cancel" not in overview
    assert f"/page/runs/{run}/cancel" in overview
    assert client.post(f"/page/builds/{build}/cancel", headers=HTMX).status_code == 403
    assert guarded.state(build) == "queued"
    builder = guarded.client()
    builder.post("/session", data={"key": add_key(guarded, "build"), "to": "/"}, headers=HERE)
    assert f"/page/builds/{build}/cancel" in builder.get("/").text, "whoever may build may look"
