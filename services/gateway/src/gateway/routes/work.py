"""Builds, runs and reports; and what runs and reports have besides: metrics, and a page to read."""

from __future__ import annotations

import pathlib
from typing import Annotated

from fastapi import Depends, Path, Query
from fastapi.responses import FileResponse, HTMLResponse

from gateway import artifacts
from gateway.auth import Caller, ServiceHere, need
from gateway.messages import (
    Build,
    BuildPlan,
    BuildRequest,
    Metrics,
    Page,
    Report,
    ReportPlan,
    ReportRequest,
    Run,
    RunPlan,
    RunRequest,
)
from gateway.problems import ProblemError
from gateway.requests import (
    plan_build,
    plan_report,
    plan_training,
    understand_build,
    understand_report,
    understand_run,
)
from gateway.routes.entries import Kinds, router_of
from gateway.routes.parameters import Id, problems
from gateway.routes.present import require
from gateway.service import Service
from manifest.record import MANIFEST

MOST_ROWS = 10_000
PAGE = "report.html"
FILE = r"^[A-Za-z0-9_-]+\.[a-z]+$"
PAGE_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"

builds = router_of(Kinds("build", BuildRequest, Build, Page[Build], BuildPlan, understand_build, plan_build))
runs = router_of(Kinds("run", RunRequest, Run, Page[Run], RunPlan, understand_run, plan_training))
reports = router_of(Kinds("report", ReportRequest, Report, Page[Report], ReportPlan, understand_report, plan_report))

Reader = Annotated[Caller, Depends(need("read"))]


@runs.get("/{entry_id:entry}/metrics", responses=problems(404))
def metrics_of_run(
    service: ServiceHere, _: Reader, entry_id: Id, from_step: Annotated[int, Query(ge=0, lt=2**53)] = 0
) -> Metrics:
    """The rows of a run, a step each, from a step on; at most ten thousand at once."""
    with service.database.read() as session:
        path = require(session, "run", entry_id).resolved["path"]
    rows = artifacts.metrics_rows(service.store, path, from_step, MOST_ROWS)
    return Metrics(rows=rows, next_step=rows[-1]["step"] + 1 if rows else from_step)


@reports.get("/{entry_id:entry}/page", response_class=HTMLResponse, responses=problems(404))
def page_of_report(service: ServiceHere, _: Reader, entry_id: Id) -> HTMLResponse:
    """The report as a page to read."""
    return HTMLResponse(_file(service, entry_id, PAGE).read_bytes(), headers={"Content-Security-Policy": PAGE_POLICY})


@reports.get("/{entry_id:entry}/{name}", response_class=FileResponse, responses=problems(404))
def file_of_report(
    service: ServiceHere, _: Reader, entry_id: Id, name: Annotated[str, Path(pattern=FILE, max_length=100)]
) -> FileResponse:
    """A file of the report, as its page links to them: report.md, manifest.json, the rows of every document."""
    headers = {"Content-Security-Policy": PAGE_POLICY}
    return FileResponse(_file(service, entry_id, name), filename=name, headers=headers)


def _file(service: Service, entry_id: str, name: str) -> pathlib.Path:
    """A file that a report's manifest lists, or the manifest. Raises ProblemError."""
    with service.database.read() as session:
        result = require(session, "report", entry_id).result
    if result is None:
        raise ProblemError(404, f"{entry_id} has no files: it has not succeeded")
    manifest = service.store.manifest(result["path"])
    if manifest is None:
        raise ProblemError(404, f"{result['path']} is no longer in the store; send {entry_id}'s request again")
    if name not in {MANIFEST, *(file.path for file in manifest.files())}:
        raise ProblemError(404, f"{entry_id} has no file {name}")
    return service.store.local(result["path"]) / name
