"""What the pages show, over a real ledger and a real store."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest
from tests.gateway.page.conftest import Ledger

from gateway.jobs.dispatch import Dispatcher, Terms
from gateway.web.curve import MOST_POINTS

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>{{ 7*7 }}\x1b[31m\u202e"


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


def test_entries_of_one_recipe_are_told_apart_by_their_labels(ledger: Ledger) -> None:
    first, second = (ledger.ask("run", "grid", f"peak {peak}, seed 0", path="runs/grid") for peak in (0.001, 0.003))
    ledger.begin(first, 25)
    client = ledger.client()
    for place in ("/", "/runs", "/page/now"):
        shown = text_of(client.get(place).text)
        assert "grid peak 0.001, seed 0" in shown
        assert "grid peak 0.003, seed 0" in shown
    assert "Cancel run grid, peak 0.003, seed 0" in client.get("/page/now").text
    assert "peak 0.003, seed 0" in client.get(f"/runs/{second}").text


@pytest.mark.parametrize("path", ["/", "/builds", "/builds/{id}", "/page/now", "/page/builds/{id}"])
def test_what_users_and_their_work_say_is_text_and_nothing_else(ledger: Ledger, path: str) -> None:
    build = ledger.ask(name=HOSTILE, label=HOSTILE.replace("\x1b", ""))
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

    def unchanged(path: str) -> bool:
        first = client.get(path)
        again = client.get(path, headers={"if-none-match": first.headers["etag"]})
        return (first.status_code, again.status_code, again.content) == (200, 304, b"")

    for path in ("/page/now", "/page/mixtures", f"/page/builds/{build}"):
        assert any(unchanged(path) for _ in range(3)), path  # how many seconds something waits may change in between
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
