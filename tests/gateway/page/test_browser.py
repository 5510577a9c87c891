"""The page in a real browser."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from playwright.sync_api import Browser, expect, sync_playwright
from tests.gateway.page.conftest import Ledger

from gateway.app import create_app
from gateway.service import Service

CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"]


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
    build, run = ledger.ask(name="w" * 150), ledger.ask("run", label="l" * 200, path="runs/" + "r" * 120)
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
        assert [url for url in watched.requests if "/page/" in url] == []  # its icon may come late
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
