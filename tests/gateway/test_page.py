"""The page, as a browser gets it: over a real ledger and a real store, and once in a real browser."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from fastapi.testclient import TestClient
from playwright.sync_api import Browser, expect, sync_playwright
from work_fixtures import data_recipe

from gateway.app import create_app
from gateway.jobs.dispatch import Dispatcher, Terms
from gateway.ledger import entries, keys
from gateway.ledger.database import open_database
from gateway.ledger.entries import New
from gateway.ledger.states import Kind, State
from gateway.ledger.tables import EntryRow, JobRow
from gateway.service import Service
from gateway.settings import Settings
from gateway.web.curve import MOST_POINTS, curve, thinned
from gateway.web.render import plain, size
from manifest.mixture import Mixture, Phase, Stream, Tokenizer, View
from manifest.store import open_store

CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"]
HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>{{ 7*7 }}\x1b[31m\u202e"
HERE = {"sec-fetch-site": "same-origin"}
HTMX = {**HERE, "hx-request": "true"}


@dataclass(frozen=True)
class Ledger:
    """A service without a dispatcher, and short words for what happens in its ledger."""

    service: Service

    def client(self) -> TestClient:
        return TestClient(create_app(self.service), base_url="http://localhost:8787", follow_redirects=False)

    def ask(self, kind: Kind = "build", name: str = "tiny", **resolved: Any) -> str:
        """A queued entry; its id."""
        request: dict[str, Any] = {"recipe": data_recipe(name), "raw": "/raw"}
        if kind == "run":
            request = {"recipe": {"name": name}, "mixture": "mixtures/demo-1"}
        if kind == "report":
            request = {"recipe": {"name": name}, "checkpoint": "runs/demo/checkpoints/1"}
        with self.service.database.write() as session:
            now = self.service.database.now(session)
            key = f"{kind} {name}"[:64]
            return entries.submit(session, now, New(kind, name, key, request, resolved, 1, "ada"))[0].id

    def change(self, entry_id: str, *states: State, note: str | None = None, **fields: Any) -> None:
        """Through these states, and then with these fields."""
        with self.service.database.write() as session:
            row, now = session.get_one(EntryRow, entry_id), self.service.database.now(session)
            for state in states:
                entries.move(session, now, row, state)
            if note is not None:
                entries.append(session, now, row, "note", note=note)
            for name, value in fields.items():
                setattr(row, name, value)

    def begin(self, entry_id: str, done: int = 0, total: int = 100) -> None:
        """Carried out by a job of its own, and so far."""
        with self.service.database.write() as session:
            session.add(JobRow(id=f"job-{entry_id}", workers=1, owner="x", lease_until=0, created=0))
        progress = {"stage": "dedup", "done": done, "total": total, "unit": "documents", "left_s": 90.0}
        self.change(entry_id, "planning", "running", job_id=f"job-{entry_id}", attempt=1, progress=progress)

    def state(self, entry_id: str) -> str:
        with self.service.database.read() as session:
            return session.get_one(EntryRow, entry_id).state

    def write_log(self, entry_id: str, text: str) -> None:
        directory = self.service.settings.jobs / f"job-{entry_id}"
        directory.mkdir(parents=True)
        (directory / "log").write_text(text)

    def publish_mixture(self, name: str = "demo") -> str:
        """A mixture of two streams without shards; its path."""
        streams = {
            "docs": Stream(uri="../../tokens/docs", id="0" * 64, tokens=1000, documents=10, blocks=2, shards=()),
            "code": Stream(uri="../../tokens/code", id="1" * 64, tokens=3000, documents=30, blocks=6, shards=()),
        }
        record = Mixture(
            name=name,
            created="2026-01-02T03:04:05+00:00",
            tokenizer=Tokenizer(uri="../../tokenizers/t", digest="2" * 64, vocab_size=300, end_of_text=0),
            block_tokens=512,
            streams=streams,
            views={name: View(of=name, stream=name) for name in streams},
            phases=(Phase(name="main", draw={"docs": 1, "code": 3}),),
        )
        path = f"mixtures/{name}-1"
        with self.service.store.draft(path) as draft:
            record = record.identified()
            (draft / "manifest.json").write_bytes(record.to_json())
            self.service.store.publish(path, draft, record)
        return path

    def write_metrics(self, run_path: str, losses: list[float]) -> None:
        directory = Path(self.service.store.uri) / run_path
        directory.mkdir(parents=True, exist_ok=True)
        rows = ({"step": i, "tokens": 4096 * (i + 1), "loss": loss, "lr": 1e-3} for i, loss in enumerate(losses))
        (directory / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    settings = Settings(home=tmp_path, raw_roots=("/raw",))
    database = open_database(settings.database_url)
    yield Ledger(Service(settings, database, open_store(settings.store_uri)))
    database.close()


@pytest.fixture
def guarded(ledger: Ledger) -> Ledger:
    """The same, but it asks for keys."""
    settings = ledger.service.settings.model_copy(update={"keys": True})
    return Ledger(replace(ledger.service, settings=settings))


def add_key(ledger: Ledger, *scopes: str) -> str:
    with ledger.service.database.write() as session:
        return keys.add(session, ledger.service.database.now(session), "ada", scopes)


class Tags(HTMLParser):
    """The tags of a page, with their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def text_of(page: str) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", page).split())


def test_an_empty_service_shows_how_to_begin(ledger: Ledger) -> None:
    page = ledger.client().get("/")
    assert page.status_code == 200
    assert "winnow submit build recipes/demo/data.yaml --raw /raw" in page.text


def test_what_goes_on_is_shown_with_its_progress(ledger: Ledger) -> None:
    running, waiting = ledger.ask(name="first"), ledger.ask(name="second")
    ledger.begin(running, 25)
    page = ledger.client().get("/")
    tags = Tags(page.text).found
    assert [attrs["value"] for tag, attrs in tags if tag == "progress"] == ["25"]
    shown = text_of(page.text)
    assert "dedup 25 of 100 documents 90 s left" in shown
    assert shown.index("first") < shown.index("second")
    assert f'action="/page/builds/{waiting}/cancel"' in page.text


def test_every_kind_has_its_table_and_its_pages(ledger: Ledger) -> None:
    build, run, report = ledger.ask("build"), ledger.ask("run", path="runs/tiny-1"), ledger.ask("report")
    ledger.publish_mixture()
    client = ledger.client()
    overview = client.get("/").text
    for place in (f"/builds/{build}", f"/runs/{run}", f"/reports/{report}", "/mixtures/demo-1"):
        assert f'href="{place}"' in overview
        assert client.get(place).status_code == 200
    for place in ("/builds", "/runs", "/reports", "/mixtures"):
        assert client.get(place).status_code == 200


@pytest.mark.parametrize("path", ["/", "/builds", "/builds/{id}", "/page/now", "/page/builds/{id}"])
def test_what_users_and_their_work_say_is_text_and_nothing_else(ledger: Ledger, path: str) -> None:
    build = ledger.ask(name=HOSTILE)
    ledger.begin(build)
    ledger.write_log(build, HOSTILE + "\n")
    error = {"pointer": f"/recipe/{HOSTILE}", "detail": HOSTILE}
    failure = {"detail": HOSTILE, "input_is_wrong": True, "errors": [error]}
    ledger.change(build, "failed", note=HOSTILE, failure=failure)
    page = ledger.client().get(path.format(id=build)).text
    assert "&lt;script&gt;alert(1)" in page
    assert "{{ 7*7 }}" in page
    for tag, attrs in Tags(page).found:
        assert not any(name.startswith("on") or name == "style" for name in attrs), tag
        assert tag != "script" or str(attrs["src"]).startswith("/static/")
        assert tag != "img" or str(attrs["src"]).startswith("/static/")


def test_a_part_that_has_not_changed_is_not_sent_again(ledger: Ledger) -> None:
    build = ledger.ask()
    client = ledger.client()
    for path in ("/page/now", "/page/mixtures", f"/page/builds/{build}"):
        first = client.get(path)
        again = client.get(path, headers={"if-none-match": first.headers["etag"]})
        assert (first.status_code, again.status_code, again.content) == (200, 304, b"")
    before = client.get("/page/now").headers["etag"]
    ledger.begin(build)
    assert client.get("/page/now", headers={"if-none-match": before}).status_code == 200


def test_parts_are_asked_for_often_while_something_goes_on_and_seldom_otherwise(ledger: Ledger) -> None:
    client = ledger.client()
    assert 'hx-trigger="every 10s' in client.get("/page/now").text
    build = ledger.ask()
    assert 'hx-trigger="every 2s' in client.get("/page/now").text
    assert 'hx-trigger="every 2s' in client.get(f"/page/builds/{build}").text
    ledger.change(build, "cancelled")
    assert 'hx-trigger="every 10s' in client.get(f"/page/builds/{build}").text


def test_a_whole_page_already_holds_its_parts(ledger: Ledger) -> None:
    build = ledger.ask()
    ledger.begin(build, 3)
    client = ledger.client()
    for page, part in (("/", "/page/now"), (f"/builds/{build}", f"/page/builds/{build}")):
        shown = text_of(client.get(part).text)
        assert re.sub(r"\d+ s", "", shown) in re.sub(r"\d+ s", "", text_of(client.get(page).text))


def test_a_long_list_goes_on_behind_a_link(ledger: Ledger) -> None:
    for i in range(60):
        ledger.ask(name=f"build-{i:02}")
    client = ledger.client()
    overview = client.get("/").text
    older = re.search(r'href="(/builds\?before=[^"]+)"', overview)
    assert older is not None
    first = client.get("/builds").text
    assert "build-59" in first
    assert "build-05" not in first
    following = re.search(r'href="(/builds\?before=[^"]+)"', first)
    assert following is not None
    assert "build-05" in client.get(following[1]).text


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


def test_an_entry_tells_its_whole_story(ledger: Ledger) -> None:
    build = ledger.ask()
    ledger.begin(build)
    ledger.write_log(build, "a line of the log\n")
    ledger.change(build, note="the tokenizer is new")
    error = {"pointer": "/recipe/dedup/threshold", "detail": "found 3, expected 0 to 1"}
    failure = {"detail": "dedup cannot be done", "input_is_wrong": True, "errors": [error]}
    ledger.change(build, "failed", failure=failure)
    shown = text_of(ledger.client().get(f"/builds/{build}").text)
    for told in (
        "failed",
        "by ada",
        f"job-{build}",
        "the tokenizer is new",
        "a line of the log",
        "/recipe/dedup/threshold found 3, expected 0 to 1",
        "vocab_size: 300",
        "Try again",
    ):
        assert told in shown


def test_a_result_is_a_link(ledger: Ledger) -> None:
    path = ledger.publish_mixture()
    build, report = ledger.ask(), ledger.ask("report")
    for entry, kind, place in ((build, "mixture", path), (report, "report", "reports/demo-1")):
        ledger.begin(entry)
        result = {"path": place, "kind": kind, "name": "demo", "id": "f" * 64, "also": []}
        ledger.change(entry, "publishing", "succeeded", result=result)
    client = ledger.client()
    assert f'href="/{path}"' in client.get(f"/builds/{build}").text
    assert f'href="/v1/reports/{report}/page"' in client.get(f"/reports/{report}").text


def test_a_mixture_shows_phases_and_streams(ledger: Ledger) -> None:
    path = ledger.publish_mixture()
    client = ledger.client()
    page = client.get(f"/{path}")
    shown = text_of(page.text)
    assert "main 2,048 4 docs 25 %, code 75 %" in shown
    assert "total 4,000 40" in shown
    assert f'href="/v1/lineage/{path}"' in page.text


@pytest.mark.parametrize(
    "path",
    ["/builds/build-1", "/runs/%00", "/mixtures/none", "/mixtures/..%2f..%2fetc", "/mixtures/.drafts", "/runs/x'y"],
)
def test_what_is_not_there_is_said_to_be_so(ledger: Ledger, path: str) -> None:
    answer = ledger.client().get(path)
    assert (answer.status_code, answer.headers["content-type"]) == (404, "text/html; charset=utf-8")


def test_a_run_shows_its_loss(ledger: Ledger) -> None:
    run = ledger.ask("run", path="runs/tiny-1")
    ledger.write_metrics("runs/tiny-1", [8.0 / (i + 1) ** 0.2 for i in range(1000)])
    page = ledger.client().get(f"/runs/{run}").text
    assert "at step 999, after 4.1 M tokens" in text_of(page)
    (points,) = (attrs["points"] for tag, attrs in Tags(page).found if tag == "polyline")
    assert len(str(points).split()) == MOST_POINTS


def test_trouble_and_a_ray_that_is_not_up_are_said(ledger: Ledger, processes: Any) -> None:
    home = ledger.service.settings.home
    terms = Terms(owner="me", jobs=home / "jobs", store=str(home / "store"), cpus=1, lease_s=5, poll_s=1, max_faults=1)
    dispatcher = Dispatcher(ledger.service.database, processes, terms)
    client = Ledger(replace(ledger.service, dispatcher=dispatcher)).client()
    assert "Ray is starting" in client.get("/").text
    dispatcher.ray_is_up = True
    assert 'class="banner"' not in client.get("/").text
    dispatcher.trouble = "the disk is full"
    assert "the disk is full" in client.get("/").text


def test_files_of_the_page_are_kept_by_browsers_under_their_digest(ledger: Ledger) -> None:
    client = ledger.client()
    for place in re.findall(r'(?:src|href)="(/static/[^"]+)"', client.get("/").text):
        answer = client.get(place)
        assert (answer.status_code, "immutable" in answer.headers["cache-control"]) == (200, True)
        assert client.get(place.split("?")[0]).headers["cache-control"] == "no-cache"


def test_the_page_allows_only_what_is_its_own(ledger: Ledger) -> None:
    policy = ledger.client().get("/").headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy


def test_a_curve_lies_within_its_axes() -> None:
    rows = [{"step": i, "loss": loss} for i, loss in enumerate((5.2, 4.1, float("nan"), 3.3, 3.4))]
    drawn = curve(rows)
    assert drawn is not None
    places = [tuple(map(float, point.split(","))) for point in drawn.points.split()]
    assert [x for x, _ in places] == [0, 25, 75, 100]
    assert all(0 <= y <= 100 for _, y in places)
    assert (drawn.lowest["step"], drawn.losses[0].at, drawn.losses[-1].at) == (3, 100, 0)


@pytest.mark.parametrize("losses", [[], [1.0], [float("inf"), 2.0]])
def test_too_little_makes_no_curve(losses: list[float]) -> None:
    assert curve([{"step": i, "loss": loss} for i, loss in enumerate(losses)]) is None


def test_a_flat_curve_has_an_axis_too() -> None:
    drawn = curve([{"step": i, "loss": 2.0} for i in range(3)])
    assert drawn is not None
    assert len(drawn.losses) >= 2


def test_thinning_keeps_both_ends() -> None:
    rows = [{"step": i} for i in range(12_345)]
    kept = thinned(rows)
    assert (len(kept), kept[0]["step"], kept[-1]["step"]) == (MOST_POINTS, 0, 12_344)


def test_numbers_and_text_as_people_read_them() -> None:
    assert [size(n) for n in (0, 99_999, 123_456, 4_300_000, 2.5e12)] == ["0", "99,999", "123 k", "4.3 M", "2.5 T"]
    assert plain("\x1b[1;31mred\x1b[0m\ttab\x00\u202e") == "red\ttab"


@contextmanager
def serving(service: Service) -> Iterator[str]:
    """A real server on a thread; its address."""
    server = uvicorn.Server(uvicorn.Config(create_app(service), port=0, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.02)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture
def browser() -> Iterator[Browser]:
    if not CHROMIUM.exists():
        pytest.skip("no chromium on this machine (Debian's package chromium)")
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield opened
        opened.close()


class Watched:
    """A page whose complaints and requests are written down."""

    def __init__(self, browser: Browser, **options: Any) -> None:
        self.page = browser.new_page(**options)
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))

    def overflow(self) -> int:
        """How many pixels of the page lie beyond the right edge."""
        return int(self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))


def test_a_browser_sees_what_happens_without_reloading(ledger: Ledger, browser: Browser) -> None:
    running = ledger.ask(name="a-name-that-is-long-" * 6)
    ledger.begin(running, 25)
    with serving(ledger.service) as address:
        watched = Watched(browser, viewport={"width": 360, "height": 800})
        page = watched.page
        page.goto(address)
        page.evaluate("window.untouched = true")
        bar = page.locator("progress")
        assert bar.get_attribute("value") == "25"
        page.locator(f"#button-cancel-{running}").focus()
        progress = {"stage": "tokenize", "done": 70, "total": 100, "unit": "documents"}
        ledger.change(running, progress=progress)
        expect(bar).to_have_attribute("value", "70", timeout=6000)
        expect(page.locator(f"#button-cancel-{running}")).to_be_focused()
        page.locator(f"#button-cancel-{running}").click()
        expect(page.locator("#said")).to_contain_text("was asked to stop")
        expect(page.locator(f"#going-{running} .state")).to_contain_text("stopping")
        ledger.change(running, "cancelled")
        expect(page.locator("#now")).to_contain_text("Nothing is going on", timeout=6000)
        assert page.evaluate("window.untouched")
        assert watched.overflow() == 0
    assert watched.complaints == []
    assert {url.split("/")[2] for url in watched.requests} == {address.split("/")[2]}


def test_every_page_fits_a_small_screen(ledger: Ledger, browser: Browser) -> None:
    path, paths = ledger.publish_mixture("m" * 90), ["/", "/builds", "/mixtures"]
    build, run = ledger.ask(name="w" * 150), ledger.ask("run", path="runs/" + "r" * 120)
    ledger.begin(build)
    ledger.write_log(build, "x" * 500 + "\n")
    ledger.change(build, "failed", note="n" * 400, failure={"detail": "d" * 400, "input_is_wrong": False, "errors": []})
    ledger.write_metrics("runs/" + "r" * 120, [9.0, 5.0, 4.0])
    with serving(ledger.service) as address:
        watched = Watched(browser, viewport={"width": 360, "height": 800})
        for place in (*paths, f"/{path}", f"/builds/{build}", f"/runs/{run}"):
            watched.page.goto(f"{address}{place}")
            assert watched.overflow() == 0, place
    assert watched.complaints == []


def test_polling_rests_while_nobody_looks(ledger: Ledger, browser: Browser) -> None:
    ledger.ask()
    with serving(ledger.service) as address:
        watched = Watched(browser)
        watched.page.goto(address)
        watched.page.evaluate("Object.defineProperty(document, 'hidden', {get: () => true, configurable: true})")
        watched.requests.clear()
        watched.page.wait_for_timeout(5000)
        assert watched.requests == []
        watched.page.evaluate("delete document.hidden; document.dispatchEvent(new Event('visibilitychange'))")
        watched.page.wait_for_timeout(500)
        assert any(url.endswith("/page/now") for url in watched.requests)


def test_the_page_says_when_the_service_is_away(ledger: Ledger, browser: Browser) -> None:
    ledger.ask()
    watched = Watched(browser)
    with serving(ledger.service) as address:
        watched.page.goto(address)
        expect(watched.page.locator(".lost")).to_be_hidden()
    expect(watched.page.locator(".lost")).to_be_visible(timeout=6000)


def test_the_page_can_be_read_without_javascript(ledger: Ledger, browser: Browser) -> None:
    build = ledger.ask()
    with serving(ledger.service) as address:
        page = browser.new_page(java_script_enabled=False)
        page.goto(address)
        page.get_by_role("button", name="Cancel").click()
        assert page.url == f"{address}/builds/{build}"
        expect(page.locator("#entry")).to_contain_text("cancelled")
