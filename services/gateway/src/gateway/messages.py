"""What crosses HTTP: requests, and the answers to them. docs/http.md shows each; /openapi.json is made of these.

    POST /v1/builds   BuildRequest   → Build          POST /v1/builds?dry_run=true  → BuildPlan
    POST /v1/runs     RunRequest     → Run            POST /v1/runs?dry_run=true    → RunPlan
    POST /v1/reports  ReportRequest  → Report
    GET  /v1/builds   Page[Build]                     GET …/{id}/events             → Event, as server-sent events

A build, a run and a report are *entries* of the ledger: one life, three kinds of work.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Any, Generic, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from gateway.ledger.states import Kind, State
from manifest.progress import Progress

NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"
PATH = r"^[A-Za-z0-9][A-Za-z0-9_.-]*(/[A-Za-z0-9][A-Za-z0-9_.-]*)*$"

T = TypeVar("T")

Recipe = Annotated[
    dict[str, Any], Field(description="A recipe as it stands in YAML, as JSON. docs/recipes.md has its fields.")
]
Workers = Annotated[int, Field(ge=1, le=4096, description="How many workers do it, one CPU (or GPU) each.")]
Reference = Annotated[
    str,
    StringConstraints(min_length=1, max_length=300, pattern=PATH),
    Field(
        description="A published artifact: its path in the store (mixtures/demo-9f2c…), its id, or the id of the "
        "build, run or report that published it."
    ),
]
Tokens = Annotated[int, Field(gt=0, le=10**15)]
Label = (
    Annotated[
        str,
        StringConstraints(min_length=1, max_length=500, pattern=r"^[^\x00-\x1f\x7f]+$"),
        Field(description="What the caller calls it, to tell it from others of the same recipe. It changes nothing."),
    ]
    | None
)


class Message(BaseModel):
    """A part of a message: frozen, unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class BuildOptions(Message):
    """How a build is done; none of it changes what comes out."""

    workers: Workers = 1
    until: str = Field("mixtures", max_length=40, description="Stop after this stage: documents … mixtures.")


class BuildRequest(Message):
    """A data recipe over raw files. `raw` lies under one of the roots that the service was started with."""

    recipe: Recipe
    raw: str = Field(
        min_length=1, max_length=2000, description="A directory or URI under a configured root; or a path in the root."
    )
    options: BuildOptions = BuildOptions()
    label: Label = None


class RunRequest(Message):
    """A train recipe over a mixture. Runs of one `group` that wait together share a job, one after another."""

    recipe: Recipe
    mixture: Reference
    size: Annotated[str, StringConstraints(pattern=NAME, max_length=100)] | None = Field(
        None, description="An entry of `sizes` (default: the one that the recipe names)."
    )
    sizes: dict[str, dict[str, dict[str, Any]]] | None = Field(
        None, description="What sizes.yaml holds: recipe or 'shared' → size → dimensions. Default: the service's own."
    )
    tokens: Tokens | None = Field(None, description="Scale the mixture's draws to so many tokens.")
    seed: int | None = Field(None, ge=0, lt=2**63, description="Of initialisation and order (default: the mixture's).")
    workers: Workers = 1
    group: Annotated[str, StringConstraints(pattern=NAME, max_length=100)] | None = None
    label: Label = None


class ReportRequest(Message):
    """An eval recipe over a checkpoint (or the newest one of a run), perhaps compared with another report. `heldout`:
    the mixture whose held-out documents are scored, instead of the one that the checkpoint was trained on.
    """

    recipe: Recipe
    checkpoint: Reference = Field(description="A checkpoint, or a run, of which the newest checkpoint is taken.")
    compare_to: Reference | None = None
    heldout: Reference | None = None
    workers: Workers = 1
    label: Label = None


class Result(Message):
    """What was published: a path in the store, and what the manifest there says. `also`: other paths, if several."""

    path: str
    kind: str
    name: str
    id: str
    also: list[str] = []


class FieldError(Message):
    """A field that is wrong. `pointer` is a JSON pointer into the request."""

    pointer: str
    detail: str

    @classmethod
    def at(cls, place: Iterable[str | int], detail: str) -> Self:
        """The error at a path of keys: ("recipe", "dedup", "threshold") → /recipe/dedup/threshold (RFC 6901)."""
        escaped = (str(part).replace("~", "~0").replace("/", "~1") for part in place)
        return cls(pointer="".join(f"/{part}" for part in escaped), detail=detail)


class Problem(BaseModel):
    """RFC 9457: what went wrong, and what to do. `errors` names the wrong fields of the request."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    instance: str | None = None
    errors: list[FieldError] = []


class Failure(Message):
    """Why an entry failed. `input_is_wrong`: what was asked cannot be done; a retry alone will not help."""

    detail: str
    input_is_wrong: bool
    errors: list[FieldError] = []


class Entry(Message):
    """What builds, runs and reports have in common.

    attempt: 0 while it has never been started. note: the last line that the work said. job: the Ray job of this
    attempt.
    """

    id: str
    kind: Kind
    name: str
    state: State
    progress: Progress | None = None
    note: str | None = None
    attempt: int = 0
    cancel_requested: bool = False
    created: datetime
    started: datetime | None = None
    ended: datetime | None = None
    created_by: str
    job: str | None = None
    result: Result | None = None
    failure: Failure | None = None


class Build(Entry):
    """A build. `identity`: of recipe and raw content, once known; two builds with one identity are one build."""

    kind: Literal["build"] = "build"
    request: BuildRequest
    identity: str | None = None
    same_as: str | None = Field(None, description="The earliest other build of the same recipe and raw content.")


class Run(Entry):
    """A run of training. `path`: its directory in the store."""

    kind: Literal["run"] = "run"
    request: RunRequest
    path: str


class Report(Entry):
    """The scoring of a checkpoint."""

    kind: Literal["report"] = "report"
    request: ReportRequest


class Page(BaseModel, Generic[T]):
    """Some of many, newest first. `next`: the cursor of those after, or null."""

    items: list[T]
    next: str | None = None


class Event(Message):
    """Something that happened to an entry. `seq` counts from 1 without gaps, and is the id of the server-sent event."""

    seq: int
    at: datetime
    type: Literal["state", "progress", "note"]
    state: State
    progress: Progress | None = None
    note: str | None = None


class SourcePlan(Message):
    """What a source holds, by estimate."""

    files: int
    bytes: int
    documents: int
    tokens: int


class BuildPlan(Message):
    """What a build would read: `bytes` of raw files as they lie there, documents before cleaning and dedup.

    Estimates, from the beginnings of some files; exact: all records were counted (tokens are estimated even then).
    """

    documents: int
    bytes: int
    tokens: int
    exact: bool
    sources: dict[str, SourcePlan]
    warnings: list[str] = []
    same_as: str | None = Field(None, description="The build that this request would be given, if there is one.")


class RunPlan(Message):
    """What a run would take: parameters, tokens, steps, FLOPs, memory; as `trainer plan --json` gives it."""

    path: str
    plan: dict[str, Any]
    same_as: str | None = None


class ReportPlan(Message):
    """What a report would be over."""

    checkpoint: Result
    same_as: str | None = None


class Mixture(Message):
    """A published mixture. `manifest` is left out of lists."""

    path: str
    id: str
    name: str
    created: datetime | None
    phases: list[str]
    tokens: int
    documents: int
    manifest: dict[str, Any] | None = None


class Metrics(Message):
    """Rows of a run's metrics.jsonl from a step on. `next_step`: where to go on."""

    rows: list[dict[str, Any]]
    next_step: int


class Log(Message):
    """A part of the log of an entry's newest attempt. `next_offset`: where to go on, in bytes."""

    text: str
    next_offset: int
    attempt: int
