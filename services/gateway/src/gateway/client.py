"""The service, as Python objects: what docs/http.md shows, over one connection pool.

    with Client("http://127.0.0.1:8787") as client:
        build, new = client.submit(BuildRequest(recipe=…, raw="raw"))
        print(client.wait(build.id).result)

A request is sent again if the connection breaks or the service is away for a moment; what it asks for is done once,
however often it comes. What it raises is in gateway/failures.py.
"""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from types import TracebackType
from typing import Annotated, Any, Self, TypeVar, cast, get_args, overload
from urllib.parse import quote, urlsplit

import httpx2
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from gateway.address import DEFAULT_SERVER, LOOPBACK
from gateway.failures import Misunderstood, ProblemError, Unreachable, printable
from gateway.ledger.states import Kind, State
from gateway.messages import (
    Build,
    BuildPlan,
    BuildRequest,
    Event,
    Log,
    Metrics,
    Mixture,
    Page,
    Problem,
    Report,
    ReportPlan,
    ReportRequest,
    Run,
    RunPlan,
    RunRequest,
)
from manifest.errors import InputError

PAGE = 200
TRIES = 4
FIRST_PAUSE_S = 0.25
LONGEST_PAUSE_S = 5.0
PATIENCE_S = 3600.0
"""How long a server is waited for that has answered before."""
TIMEOUT = httpx2.Timeout(30.0, connect=5.0, read=120.0)  # an estimate over a large raw directory takes its time
SILENCE_S = 60.0
"""An event stream that is silent for so long is opened again; a living one pings."""
AWAY = frozenset({502, 503, 504})

Submission = BuildRequest | RunRequest | ReportRequest
Plan = BuildPlan | RunPlan | ReportPlan
AnyEntry = Annotated[Build | Run | Report, Field(discriminator="kind")]

M = TypeVar("M", bound=BaseModel)
T = TypeVar("T")

KINDS: tuple[Kind, ...] = get_args(Kind)
_ENTRY: TypeAdapter[Build | Run | Report] = TypeAdapter(AnyEntry)
_ENTRIES: TypeAdapter[Page[Build | Run | Report]] = TypeAdapter(Page[AnyEntry])
_MIXTURES: TypeAdapter[Page[Mixture]] = TypeAdapter(Page[Mixture])
_EVENT: TypeAdapter[Event] = TypeAdapter(Event)
_PLANS: dict[type[Submission], TypeAdapter[Any]] = {
    BuildRequest: TypeAdapter(BuildPlan),
    RunRequest: TypeAdapter(RunPlan),
    ReportRequest: TypeAdapter(ReportPlan),
}
_TREE: TypeAdapter[dict[str, Any]] = TypeAdapter(dict[str, Any])


def kind_of(entry_id: str) -> Kind:
    """build-0654… → build. Raises InputError for what is no id of an entry."""
    match = re.fullmatch(rf"({'|'.join(KINDS)})-[0-9A-Za-z_-]+", entry_id)
    if match is None:
        raise InputError(
            f"{entry_id!r} is not the id of a build, a run or a report, such as build-0654…; `winnow ls` lists them"
        )
    return cast(Kind, match[1])


def _ignore(error: Unreachable) -> None:
    pass


class Client:
    """A service by its URL, and the key to it if it asks for one. Use as a context manager.

    Every method raises Unreachable, Misunderstood and ProblemError, and InputError for an id that cannot be one.
    """

    def __init__(self, server: str = DEFAULT_SERVER, key: str | None = None, *, patience_s: float = PATIENCE_S) -> None:
        """Raises InputError for a URL or a key that cannot be one."""
        self.server = server.rstrip("/")
        self.patience_s = patience_s
        self._reached = False
        self._http = httpx2.Client(
            base_url=self.server,
            headers={"Accept": "application/json", **_authorization(key)},
            timeout=TIMEOUT,
            trust_env=_host(self.server) not in LOOPBACK,  # a proxy of the environment is not for this machine
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    @overload
    def submit(self, request: BuildRequest) -> tuple[Build, bool]: ...
    @overload
    def submit(self, request: RunRequest) -> tuple[Run, bool]: ...
    @overload
    def submit(self, request: ReportRequest) -> tuple[Report, bool]: ...
    def submit(self, request: Submission) -> tuple[Build | Run | Report, bool]:
        """The entry for a request, and whether it is new."""
        response = self._post(_place(request), request)
        return self._read(_ENTRY, response), response.status_code == 201

    @overload
    def plan(self, request: BuildRequest) -> BuildPlan: ...
    @overload
    def plan(self, request: RunRequest) -> RunPlan: ...
    @overload
    def plan(self, request: ReportRequest) -> ReportPlan: ...
    def plan(self, request: Submission) -> Plan:
        """What a request would do; nothing is made."""
        plan: Plan = self._read(_PLANS[type(request)], self._post(f"{_place(request)}?dry_run=true", request))
        return plan

    def get(self, entry_id: str) -> Build | Run | Report:
        return self._get(_ENTRY, _at(entry_id))

    def list(
        self, kind: Kind, states: Sequence[State] = (), limit: int | None = None
    ) -> Iterator[Build | Run | Report]:
        """The entries of a kind, newest first; `limit`: not more than so many."""
        size = PAGE if limit is None else max(1, min(limit, PAGE))
        return islice(self._pages(_ENTRIES, f"/v1/{kind}s", {"state": list(states), "limit": size}), limit)

    def cancel(self, entry_id: str) -> Build | Run | Report:
        return self._read(_ENTRY, self._post(f"{_at(entry_id)}:cancel"))

    def retry(self, entry_id: str) -> Build | Run | Report:
        """Queues an entry again that failed or was cancelled."""
        return self._read(_ENTRY, self._post(f"{_at(entry_id)}:retry"))

    def log(self, entry_id: str, offset: int = 0) -> Log:
        """What the log says from a byte on."""
        return self._get(TypeAdapter(Log), f"{_at(entry_id)}/log", {"offset": offset})

    def metrics(self, run_id: str, from_step: int = 0) -> Metrics:
        """What a run measured from a step on."""
        if kind_of(run_id) != "run":
            raise InputError(f"{run_id} is not a run; only runs have metrics")
        return self._get(TypeAdapter(Metrics), f"{_at(run_id)}/metrics", {"from_step": from_step})

    def report_file(self, report_id: str, name: str) -> bytes:
        """A file of a report that has succeeded: manifest.json, or one that the manifest lists."""
        if kind_of(report_id) != "report":
            raise InputError(f"{report_id} is not a report; only reports have files")
        return self._send("GET", f"{_at(report_id)}/{quote(name, safe='')}").content

    def mixtures(self, limit: int | None = None) -> Iterator[Mixture]:
        """The published mixtures, newest first, without their manifests."""
        size = PAGE if limit is None else max(1, min(limit, PAGE))
        return islice(self._pages(_MIXTURES, "/v1/mixtures", {"limit": size}), limit)

    def mixture(self, reference: str) -> Mixture:
        """A mixture by path or id, with its manifest."""
        return self._get(TypeAdapter(Mixture), f"/v1/mixtures/{quote(reference, safe='/')}")

    def lineage(self, reference: str) -> dict[str, Any]:
        """The tree under an artifact, by path or id, as manifest.lineage.as_json has it."""
        return self._get(_TREE, f"/v1/lineage/{quote(reference, safe='/')}")

    def exposure(self, document: str) -> dict[str, Any]:
        """Where a document is held and what has read it: the fields of manifest.sightings.Sightings."""
        return self._get(_TREE, f"/v1/documents/{quote(document, safe='')}/exposure")

    def events(self, entry_id: str, after: int = 0) -> Iterator[Event]:
        """What happens to an entry, from an event on, until the entry has ended."""
        return (message for message in self.follow(entry_id, after) if isinstance(message, Event))

    def wait(self, entry_id: str) -> Build | Run | Report:
        """The entry when it has ended."""
        for message in self.follow(entry_id):
            if not isinstance(message, Event):
                return message
        raise AssertionError("the last message is the entry")

    def follow(
        self, entry_id: str, after: int = 0, *, lost: Callable[[Unreachable], None] = _ignore
    ) -> Iterator[Event | Build | Run | Report]:
        """The events of an entry from one on, and last the entry itself, which has ended.

        Connections that break are made again. A server that has answered before is waited for, `patience_s` long;
        `lost` hears of it once each time.
        """
        pause_s, away_since = FIRST_PAUSE_S, None
        while True:
            try:
                with self._stream(f"{_at(entry_id)}/events", after) as stream:
                    away_since = None
                    for message in stream:
                        pause_s = FIRST_PAUSE_S
                        if not isinstance(message, Event):
                            yield message
                            return
                        if message.seq > after:
                            after = message.seq
                            yield message
            except Unreachable as error:
                if not self._reached or (away_since and time.monotonic() - away_since > self.patience_s):
                    raise
                if away_since is None:
                    away_since = time.monotonic()
                    lost(error)
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    @contextmanager
    def _stream(self, path: str, after: int) -> Iterator[Iterator[Event | Build | Run | Report]]:
        """An open stream of events. It ends with the connection. Raises Unreachable if it cannot be opened."""
        headers = {"Last-Event-ID": str(after)} if after else {}
        timeout = httpx2.Timeout(TIMEOUT.connect, read=SILENCE_S)
        with _translated(self.server), self._http.sse(path, headers=headers, timeout=timeout) as source:
            self._check(source.response)
            yield self._messages(source)

    def _messages(self, source: httpx2.EventSource) -> Iterator[Event | Build | Run | Report]:
        try:
            for sent in source:
                if sent.event == "end":
                    yield self._parse(_ENTRY, sent.data)
                elif sent.event in ("state", "progress", "note"):
                    yield self._parse(_EVENT, sent.data)
        except httpx2.SSEError as error:
            raise self._misunderstood(str(error)) from error
        except httpx2.TransportError:
            return  # the connection broke; the next one goes on where it stopped

    def _pages(self, adapter: TypeAdapter[Page[T]], path: str, params: Mapping[str, Any]) -> Iterator[T]:
        cursor: str | None = None
        while True:
            page = self._get(adapter, path, {**params, **({"cursor": cursor} if cursor else {})})
            yield from page.items
            cursor = page.next
            if cursor is None:
                return

    def _get(self, adapter: TypeAdapter[T], path: str, params: Mapping[str, Any] | None = None) -> T:
        return self._read(adapter, self._send("GET", path, params=params))

    def _post(self, path: str, body: BaseModel | None = None) -> httpx2.Response:
        """With a key of its own, under which the service does it once however often it comes."""
        headers, content = {"Idempotency-Key": uuid.uuid4().hex}, None
        if body is not None:
            headers["Content-Type"] = "application/json"
            content = body.model_dump_json()
        return self._send("POST", path, content=content, headers=headers)

    def _send(self, method: str, path: str, **options: Any) -> httpx2.Response:
        """The answer to a request, if it is a good one. A service that is away is asked a few times."""
        for number in range(TRIES):
            try:
                with _translated(self.server):
                    response = self._http.request(method, path, **options)
                self._check(response)
            except Unreachable:
                if number == TRIES - 1:
                    raise
                time.sleep(FIRST_PAUSE_S * 3**number)
            else:
                return response
        raise AssertionError("the last try returns or raises")

    def _check(self, response: httpx2.Response) -> None:
        """Raises ProblemError, or Unreachable for one that says that the service is away for a moment."""
        if response.is_success:
            self._reached = True
            return
        with _translated(self.server):
            response.read()
        problem = _problem(response)
        if response.status_code in AWAY:
            raise Unreachable(printable(f"{self.server} cannot serve now ({problem.status}): {problem.detail}"))
        raise ProblemError(problem)

    def _read(self, adapter: TypeAdapter[T], response: httpx2.Response) -> T:
        return self._parse(adapter, response.content)

    def _parse(self, adapter: TypeAdapter[T], data: str | bytes) -> T:
        try:
            return adapter.validate_json(data)
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            place = ".".join(str(part) for part in first["loc"]) or "the answer"
            raise self._misunderstood(f"{place}: {first['msg']}") from error

    def _misunderstood(self, what: str) -> Misunderstood:
        return Misunderstood(
            printable(
                f"{self.server} answers, but not as this client understands ({what}); is it a Winnow service, and of "
                "this version?"
            )
        )


@contextmanager
def _translated(server: str) -> Iterator[None]:
    """What goes wrong on the way to the server, as Unreachable."""
    try:
        yield
    except httpx2.ReadTimeout as error:
        raise Unreachable(
            f"{server} took the request, and does not answer it in time; it may have too much to do: look at the "
            "machine that it runs on, then ask again"
        ) from error
    except httpx2.TransportError as error:
        raise Unreachable(
            f"{server} does not answer ({error or type(error).__name__}); start it with `gateway serve`, or name "
            "another with --server or WINNOW_SERVER"
        ) from error


def _problem(response: httpx2.Response) -> Problem:
    try:
        return Problem.model_validate_json(response.content)
    except ValidationError:
        said = f"{response.status_code} {response.reason_phrase}".strip()
        url = response.request.url.copy_with(query=None)
        return Problem(
            title=said, status=response.status_code, detail=f"{url} answered {said}; is this a Winnow service?"
        )


def _host(server: str) -> str:
    """Raises InputError."""
    try:
        parts = urlsplit(server)
        parts.port  # noqa: B018 - raises for what is no port
    except ValueError as error:
        raise InputError(f"--server {server!r}: {error}; expected a URL such as {DEFAULT_SERVER}") from error
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment or parts.username:
        raise InputError(f"--server {server!r}: expected a URL such as {DEFAULT_SERVER}")
    return parts.hostname


def _authorization(key: str | None) -> dict[str, str]:
    """Raises InputError; does not repeat the key."""
    if key is None:
        return {}
    if not re.fullmatch(r"[!-~]+", key):
        raise InputError(
            "the API key is empty, or has characters that no key has; give what `gateway keys add` printed"
        )
    return {"Authorization": f"Bearer {key}"}


def _place(request: Submission) -> str:
    kinds: dict[type[Submission], Kind] = {BuildRequest: "build", RunRequest: "run", ReportRequest: "report"}
    return f"/v1/{kinds[type(request)]}s"


def _at(entry_id: str) -> str:
    return f"/v1/{kind_of(entry_id)}s/{entry_id}"
