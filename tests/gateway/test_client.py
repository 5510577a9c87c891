"""The client against the real service; and against a server that breaks its answers off, which the real one does not
do when asked."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2
import pytest
from served import Served, serving, working
from work_fixtures import data_recipe

from gateway import client as client_module
from gateway.client import Client
from gateway.failures import Misunderstood, ProblemError, Unreachable, explained, printable
from gateway.ledger import keys
from gateway.messages import Build, BuildRequest, Event, FieldError, Problem, ReportRequest
from gateway.routes import events as routes_events
from manifest.errors import InputError

NOW = datetime(2026, 1, 2, tzinfo=UTC)
REQUEST = BuildRequest(recipe={"name": "tiny"}, raw="raw")
BUILD = Build(id="build-01", name="tiny", state="queued", created=NOW, created_by="me", request=REQUEST)
ENDED = BUILD.model_copy(update={"state": "cancelled", "ended": NOW})


@pytest.fixture
def client(served: Served) -> Iterator[Client]:
    with Client(served.url) as opened:
        yield opened


def request_of(served: Served, name: str = "tiny", **overrides: Any) -> BuildRequest:
    return BuildRequest(recipe=data_recipe(name, **overrides), raw=str(served.home / "raw"))


def test_a_build_is_asked_for_followed_and_its_mixture_is_there(served: Served, client: Client) -> None:
    build, new = client.submit(request_of(served))
    assert (build.state, new) == ("queued", True)
    with working(served):
        events = list(client.events(build.id))
        ended = client.wait(build.id)
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert events[-1].state == ended.state == "succeeded", ended.failure
    assert isinstance(ended, Build)
    assert ended.result is not None
    assert [mixture.path for mixture in client.mixtures()] == [ended.result.path]
    found = client.mixture(ended.result.path)
    assert found.manifest is not None
    assert found == client.mixture(ended.result.id)
    assert client.lineage(ended.result.path)["id"] == ended.result.id
    assert client.exposure("a/nobody")["document"] == "a/nobody"
    log = client.log(build.id)
    assert client.log(build.id, log.next_offset).text == ""
    assert list(client.events(build.id, after=events[-2].seq)) == events[-1:]


def test_what_is_asked_for_twice_is_one_entry(served: Served, client: Client) -> None:
    first, new = client.submit(request_of(served))
    second, again = client.submit(request_of(served))
    assert (second.id, new, again) == (first.id, True, False)


def test_a_plan_writes_nothing(served: Served, client: Client) -> None:
    plan = client.plan(request_of(served))
    assert set(plan.sources) == {"a", "b"}
    assert plan.documents == sum(source.documents for source in plan.sources.values()) > 0
    assert list(client.list("build")) == []


def test_a_list_goes_over_all_pages_newest_first(
    served: Served, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "PAGE", 2)
    ids = [client.submit(request_of(served, f"tiny{number}"))[0].id for number in range(5)]
    client.cancel(ids[0])
    assert [entry.id for entry in client.list("build")] == ids[::-1]
    assert [entry.id for entry in client.list("build", limit=3)] == ids[:1:-1]
    assert [entry.id for entry in client.list("build", ["cancelled"])] == ids[:1]


def test_cancelling_and_trying_again(served: Served, client: Client) -> None:
    build, _ = client.submit(request_of(served))
    assert client.cancel(build.id).state == "cancelled"
    with pytest.raises(ProblemError, match="nothing to cancel") as refused:
        client.cancel(build.id)
    assert (refused.value.problem.status, refused.value.exit_code) == (409, 2)
    assert client.retry(build.id).state == "queued"


def test_a_refusal_names_the_field_in_the_words_of_the_recipe(served: Served, client: Client) -> None:
    with pytest.raises(ProblemError) as refused:
        client.submit(request_of(served, dedup={"threshold": 3}))
    assert str(refused.value).startswith("recipe.dedup.threshold: ")
    assert str(refused.value).count("threshold") == 1
    with pytest.raises(ProblemError, match=r"recipe\.sources: is missing"):
        client.submit(BuildRequest(recipe={"name": "x"}, raw="raw"))
    report = ReportRequest(recipe={"name": "x", "tasks": ["bits_per_byte"]}, checkpoint="runs/none/checkpoints/1")
    with pytest.raises(ProblemError, match=r"^checkpoint: "):
        client.submit(report)


def test_what_is_not_there_is_the_callers_mistake(client: Client) -> None:
    for ask in (client.get, client.log, client.cancel, client.wait):
        with pytest.raises(ProblemError) as refused:
            ask("build-0123")
        assert (refused.value.problem.status, refused.value.exit_code) == (404, 2)
    for wrong in ("mixtures/x", "build", "build-../runs", ""):
        with pytest.raises(InputError, match="winnow ls"):
            client.get(wrong)


def test_a_service_with_keys_wants_one(tmp_path: Path) -> None:
    served = Served(tmp_path, keys=True)
    try:
        with served.database.write() as session:
            key = keys.add(session, 0.0, "me", ["read"])
        with Client(served.url) as nobody, pytest.raises(ProblemError) as refused:
            list(nobody.list("build"))
        assert refused.value.problem.status == 401
        with Client(served.url, key) as reader:
            assert list(reader.list("build")) == []
    finally:
        served.close()


@pytest.mark.parametrize("key", ["", "two words", "wk_ä", "wk_a\nX-Other: b"])
def test_a_key_that_no_header_can_hold_is_refused_and_not_repeated(key: str) -> None:
    with pytest.raises(InputError) as refused:
        Client(key=key)
    assert not key or key not in str(refused.value)


@pytest.mark.parametrize("server", ["localhost:8787", "ftp://here", "http://", "http://here:port", "http://me:pw@here"])
def test_a_server_that_is_no_url_is_refused(server: str) -> None:
    with pytest.raises(InputError, match="expected a URL such as"):
        Client(server)


@pytest.mark.parametrize("ask", [lambda client: client.get("build-01"), lambda client: client.wait("build-01")])
def test_nobody_there_is_said_with_what_to_do(ask: Callable[[Client], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "FIRST_PAUSE_S", 0.01)
    with socket.socket() as taken:  # bound and not listening: connections are refused
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with Client(url) as client, pytest.raises(Unreachable, match=r"gateway serve.*WINNOW_SERVER") as error:
            ask(client)
    assert str(error.value).startswith(f"{url} does not answer")


def test_a_restart_of_the_service_is_waited_out_and_told_once(served: Served, client: Client) -> None:
    build, _ = client.submit(request_of(served))
    told: list[Unreachable] = []
    seen: list[Any] = []
    follower = threading.Thread(target=lambda: seen.extend(client.follow(build.id, lost=told.append)))
    follower.start()
    while not seen:
        time.sleep(0.01)
    served.stop()
    time.sleep(1.5)
    served.start()
    with Client(served.url) as other:
        other.cancel(build.id)
    follower.join(30)
    assert [message.seq for message in seen[:-1]] == [1, 2]
    assert (seen[-1].id, seen[-1].state) == (build.id, "cancelled")
    assert len(told) == 1


def event(seq: int, state: str = "running") -> str:
    said = Event(seq=seq, at=NOW, type="state", state=state)  # type: ignore[arg-type]
    return f"event: state\nid: {seq}\ndata: {said.model_dump_json()}\n\n"


END = f"event: end\nid: 9\ndata: {ENDED.model_dump_json()}\n\n"


@dataclass
class Answer:
    """What the scripted server says to one request. `cut`: the connection breaks before the promised end."""

    body: str = ""
    status: int = 200
    type: str = "application/json"
    cut: bool = False


@dataclass
class Scripted:
    """A server that answers in turn, and what it was asked."""

    url: str
    answers: list[Answer]
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)


@pytest.fixture
def scripted() -> Iterator[Callable[..., Scripted]]:
    servers: list[ThreadingHTTPServer] = []

    def start(*answers: Answer) -> Scripted:
        script = Scripted("", list(answers))

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                script.asked.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
                answer = script.answers.pop(0)
                if answer.status == 0:  # not a word
                    self.close_connection = True
                    return
                body = answer.body.encode()
                self.send_response(answer.status)
                self.send_header("Content-Type", answer.type)
                self.send_header("Content-Length", str(len(body) + (100 if answer.cut else 0)))
                self.end_headers()
                self.wfile.write(body)
                self.close_connection = True

            do_POST = do_GET  # noqa: N815 - as http.server wants it

            def log_message(self, *_: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        script.url = f"http://127.0.0.1:{server.server_address[1]}"
        return script

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def stream(*parts: str, cut: bool = False) -> Answer:
    return Answer("".join(parts), type="text/event-stream", cut=cut)


def test_a_broken_stream_goes_on_where_it_stopped(scripted: Callable[..., Scripted]) -> None:
    half = event(3)[:-20]
    script = scripted(
        stream(event(1), ": ping\n\n", event(2), half, cut=True),
        stream(event(2), event(3)),  # 2 again, and an end that is none
        Answer(status=503),
        stream(event(4), END),
    )
    with Client(script.url) as client:
        seen = list(client.follow("build-01"))
    assert [message.seq for message in seen[:-1] if isinstance(message, Event)] == [1, 2, 3, 4]
    assert seen[-1] == ENDED
    assert [headers.get("last-event-id") for _, headers in script.asked] == [None, "2", "3", "3"]


def test_a_server_is_not_waited_for_for_ever(scripted: Callable[..., Scripted]) -> None:
    script = scripted(stream(event(1)), *[Answer(status=502)] * 20)
    with Client(script.url, patience_s=0.5) as client, pytest.raises(Unreachable, match="502"):
        list(client.events("build-01"))


@pytest.mark.parametrize("trouble", [Answer(status=0), Answer(status=502), Answer(status=503), Answer(status=504)])
def test_a_submission_is_sent_again_under_one_key(scripted: Callable[..., Scripted], trouble: Answer) -> None:
    script = scripted(trouble, Answer(BUILD.model_dump_json(), 201), Answer(BUILD.model_dump_json(), 200))
    with Client(script.url) as client:
        assert client.submit(REQUEST) == (BUILD, True)
        assert client.submit(REQUEST) == (BUILD, False)
    first, second, other = (headers["idempotency-key"] for _, headers in script.asked)
    assert first == second != other


def test_an_error_of_the_service_is_not_tried_again(scripted: Callable[..., Scripted]) -> None:
    problem = Problem(title="Internal Server Error", status=500, detail="it broke")
    script = scripted(Answer(problem.model_dump_json(), 500, "application/problem+json"))
    with Client(script.url) as client, pytest.raises(ProblemError, match="it broke") as refused:
        client.submit(REQUEST)
    assert refused.value.exit_code == 1
    assert len(script.asked) == 1


@pytest.mark.parametrize(
    "answer",
    [Answer("<html>hello</html>", type="text/html"), Answer('{"id": "build-01", "colour": "red"}'), Answer("[]")],
)
def test_another_server_or_version_is_recognised(scripted: Callable[..., Scripted], answer: Answer) -> None:
    script = scripted(answer, answer)
    with Client(script.url) as client:
        with pytest.raises(Misunderstood, match="is it a Winnow service"):
            client.get("build-01")
        with pytest.raises(Misunderstood, match="is it a Winnow service"):
            client.wait("build-01")


def test_a_page_of_a_proxy_is_not_shown_as_the_services_word(scripted: Callable[..., Scripted]) -> None:
    script = scripted(Answer("<h1>no</h1>", 403, "text/html"))
    with Client(script.url) as client, pytest.raises(ProblemError, match="answered 403 Forbidden; is this a Winnow"):
        client.get("build-01")


def test_references_are_quoted_into_the_path(scripted: Callable[..., Scripted]) -> None:
    script = scripted(*[Answer("{}")] * 2)
    with Client(script.url) as client:
        client.exposure("c4/ü ?#1")
        client.lineage("mixtures/demo-1")
    assert [path for path, _ in script.asked] == [
        "/v1/documents/c4%2F%C3%BC%20%3F%231/exposure",
        "/v1/lineage/mixtures/demo-1",
    ]


def test_words_that_the_fields_say_too_are_said_once() -> None:
    errors = [FieldError(pointer="/recipe/a~1b/0", detail="is missing")]
    assert explained("recipe: 'a/b.0' is missing", errors) == "recipe.a/b.0: is missing"
    assert explained("no room", errors) == "no room\n  recipe.a/b.0: is missing"
    two = explained("x: is wrong", [FieldError(pointer=f"/{name}", detail="is wrong") for name in "xy"])
    assert two == "2 fields are wrong\n  x: is wrong\n  y: is wrong"
    assert explained("", [FieldError(pointer="", detail="is wrong")]) == "the request: is wrong"


def test_control_characters_are_spelt_out() -> None:
    text = "a\x1b[31mred\x1b[0m\x1b]0;title\x07 \x9b2J \u202e\r\nb\tü 漢"
    assert printable(text) == "ared\\x1b]0;title\\x07 \\x9b2J \\u202e\nb\tü 漢"
    problem = Problem(title="t", status=422, detail="bad\x1b[2J", errors=[FieldError(pointer="/\x1b[H", detail="x")])
    assert "\x1b" not in str(ProblemError(problem))


def test_a_revoked_key_ends_an_open_stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes_events, "CHECK_S", 0.2)
    with serving(tmp_path, keys=True) as served:
        with served.database.write() as session:
            key = keys.add(session, 0.0, "tester", ["admin"])
        with Client(served.url, key) as client:
            build, _ = client.submit(request_of(served))
            events = client.events(build.id)
            assert next(events).state == "queued"
            with served.database.write() as session:
                keys.revoke(session, 1.0, key.split("_")[1])
            with pytest.raises(ProblemError, match="not known here, or was revoked"):
                next(events)
        readiness = httpx2.get(f"{served.url}/readyz").json()
        assert "trouble" not in readiness
