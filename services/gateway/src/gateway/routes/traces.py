"""What the store holds, and where it came from and went: mixtures, lineage to raw files, exposure of documents."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path

from gateway import artifacts
from gateway.auth import Caller, ServiceHere, need
from gateway.messages import Mixture, Page
from gateway.problems import ProblemError
from gateway.routes.parameters import Cursor, Limit, problems
from manifest.errors import InputError
from manifest.lineage import as_json, lineage
from manifest.sightings import Sightings, sightings_of_document

router = APIRouter(prefix="/v1", tags=["traces"])

Reader = Annotated[Caller, Depends(need("read"))]
ArtifactId = Annotated[str, Path(max_length=400, description="A path in the store, or an id (12 or more characters).")]
DocumentId = Annotated[str, Path(min_length=1, max_length=2000)]


@router.get("/mixtures", responses=problems())
def list_mixtures(service: ServiceHere, _: Reader, cursor: Cursor = None, limit: Limit = 50) -> Page[Mixture]:
    """Published mixtures, newest first."""
    return artifacts.mixtures_page(service.store, cursor=cursor, limit=limit)


@router.get("/mixtures/{artifact_id:path}", responses=problems(404))
def get_mixture(service: ServiceHere, _: Reader, artifact_id: ArtifactId) -> Mixture:
    """One mixture, with its manifest."""
    try:
        return artifacts.mixture(service.store, artifact_id)
    except InputError as error:
        raise ProblemError(404, str(error)) from error


@router.get("/lineage/{artifact_id:path}", responses=problems(404))
def get_lineage(service: ServiceHere, _: Reader, artifact_id: ArtifactId) -> dict[str, Any]:
    """What an artifact was made from, down to raw files. A subtree that was given before is `repeated`."""
    try:
        with service.database.read() as session:
            reference = artifacts.published_by(session, artifact_id)
        path, _manifest = artifacts.find(service.store, reference)
    except InputError as error:
        raise ProblemError(404, str(error)) from error
    return as_json(lineage(service.store.where(path)))


@router.get("/documents/{document_id:path}/exposure", responses=problems(404))
def get_exposure(service: ServiceHere, _: Reader, document_id: DocumentId) -> dict[str, Any]:
    """Which mixtures hold a document, and which steps and checkpoints of all runs have read it, how often."""
    if not (service.store.exists("mixtures") or service.store.exists("runs")):
        return dataclasses.asdict(Sightings(document_id, (), ()))
    return dataclasses.asdict(sightings_of_document(service.store.uri, document_id))
