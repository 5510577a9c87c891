"""What a request means: checked in full before anything is queued, and what its job will need.

    BuildRequest  → the recipe, raw files listed under a root      key: recipe and listing of the raw files
    RunRequest    → the recipe at a size, over a mixture           key: the run's identity
    ReportRequest → the recipe, a checkpoint, perhaps a report     key: recipe and ids

The same recipe over the same raw content is the same build: equal listings have one key, and copies are found out by
their hashes when the build is planned.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from dataproc.decontaminate.items import split
from dataproc.estimate import Estimate, estimate
from dataproc.inventory import evaluation_listing, listing, listing_key
from dataproc.pipeline import STAGES
from dataproc.raw import RawFile
from dataproc.recipe import DataRecipe
from dataproc.recipe.decontaminate import is_local
from evalkit.checkpoint import Subject, open_subject
from evalkit.compare import open_report
from evalkit.recipe import EvalRecipe
from gateway import artifacts, roots
from gateway.ledger.entries import New
from gateway.messages import (
    BuildPlan,
    BuildRequest,
    ReportPlan,
    ReportRequest,
    RunPlan,
    RunRequest,
    SourcePlan,
)
from gateway.problems import ProblemError, blaming
from gateway.service import Service
from manifest.errors import InputError
from manifest.fields import nearest, validate
from manifest.identity import digest_of
from trainer.fit import FitOptions, ask
from trainer.launch import Workers
from trainer.plan import make_plan
from trainer.reading import read_yaml
from trainer.recipe import TrainRecipe
from trainer.run import local_store
from trainer.sizes import Resolved, resolve_recipe


@dataclass(frozen=True)
class Understood:
    """A request that can be carried out: what the ledger is asked for, and the facts that a plan needs."""

    new: New
    facts: Any


def understand_build(service: Service, request: BuildRequest, caller: str) -> Understood:
    """Raises ProblemError naming the field that is wrong."""
    with blaming("recipe", recipe=True):
        recipe = validate(DataRecipe, request.recipe, "recipe")
    if request.options.until not in STAGES:
        stages = ", ".join(STAGES)
        text = f"there is no stage {request.options.until!r}{nearest(request.options.until, list(STAGES))}; of {stages}"
        raise ProblemError(422, text, field=("options", "until"))
    with blaming("raw"):
        raw = roots.resolve(request.raw, service.settings.raw_root_uris)
    with blaming("recipe", "tokenizer", *recipe.tokenizer.existing[0].split(".")):
        tokenizer = _tokenizer(recipe, (*service.settings.raw_root_uris, service.store.uri))
    with blaming("recipe", "sources"):
        files = listing(recipe, raw)
        roots.require_under((file.uri for found in files.values() for file in found), service.settings.raw_root_uris)
    with blaming("recipe", "decontaminate", "against"):
        evaluations = _evaluations(recipe, raw, request.options.until, service.settings.raw_root_uris)
    with blaming("recipe", "sources"):  # names that are no text
        listed = listing_key(recipe, files, request.options.until, evaluations)
    key = digest_of({"listing": listed, "tokenizer": tokenizer})
    new = New(
        kind="build",
        name=recipe.name,
        key=key,
        request=request.model_dump(mode="json"),
        resolved={"raw": raw},
        workers=request.options.workers,
        created_by=caller,
    )
    return Understood(new, (recipe, raw))


def plan_build(understood: Understood, same_as: str | None) -> BuildPlan:
    """What a build would read. Raises ProblemError for raw files that cannot be read."""
    recipe, raw = understood.facts
    with blaming("recipe", "sources"):
        found = estimate(recipe, raw)
    return BuildPlan(
        documents=sum(source.documents for source in found.sources.values()),
        bytes=sum(source.bytes for source in found.sources.values()),
        tokens=sum(source.tokens for source in found.sources.values()),
        exact=all(source.exact for source in found.sources.values()),
        sources={name: _source_plan(source) for name, source in found.sources.items()},
        warnings=list(found.warnings),
        same_as=same_as,
    )


def understand_run(service: Service, request: RunRequest, caller: str) -> Understood:
    """Raises ProblemError naming the field that is wrong."""
    with blaming("recipe", recipe=True):
        recipe = validate(TrainRecipe, request.recipe, "recipe")
    models = {}
    for field, place in recipe.models.items():
        with blaming("recipe", field):
            models[field] = _model(service, place)
    sizes = request.sizes
    if sizes is None:
        named = request.size is not None or recipe.size is not None
        sizes = _sizes(service.settings.sizes) if named or recipe.start_from is None else {}
    with blaming("recipe", recipe=True):
        store = local_store(service.store.uri)
    with blaming(*(("recipe", "start_from") if models and request.size is None else ("size",))):
        resolved = resolve_recipe(recipe.with_models(models), sizes, request.size, store=store)
    with blaming("mixture"):
        path, _ = artifacts.find(service.store, _published(service, request.mixture), "mixture")
    uri = service.store.where(path)
    options = FitOptions(resolved, uri, service.store.uri, Workers(None, 1), tokens=request.tokens, seed=request.seed)
    with blaming("recipe", recipe=True):
        run = ask(options)
    new = New(
        kind="run",
        name=recipe.name,
        key=run.identity,
        request=request.model_dump(mode="json"),
        resolved={"mixture": uri, "sizes": _only(resolved), "path": run.path, "models": models},
        workers=request.workers,
        created_by=caller,
        group=request.group,
    )
    return Understood(new, (resolved, uri, request.tokens))


def plan_training(understood: Understood, same_as: str | None) -> RunPlan:
    """What a run would take."""
    resolved, mixture, tokens = understood.facts
    plan = make_plan(resolved, mixture=mixture, tokens=tokens)
    return RunPlan(path=understood.new.resolved["path"], plan=plan.model_dump(mode="json"), same_as=same_as)


def understand_report(service: Service, request: ReportRequest, caller: str) -> Understood:
    """Raises ProblemError naming the field that is wrong."""
    with blaming("recipe", recipe=True):
        recipe = validate(EvalRecipe, request.recipe, "recipe")
    with blaming("checkpoint"):
        path = _checkpoint(service, _published(service, request.checkpoint))
        subject = open_subject(service.store.where(path))
    resolved = {"checkpoint": service.store.where(path)}
    ids = [subject.checkpoint.manifest.id]
    if request.heldout is not None:
        with blaming("heldout"):
            mixture, _ = artifacts.find(service.store, _published(service, request.heldout), "mixture")
            resolved["heldout_of"] = service.store.where(mixture)
            subject = open_subject(service.store.where(path), resolved["heldout_of"])
        ids.append(subject.heldout.manifest.id)
    compared = request.compare_to or recipe.compare_to
    if compared is not None:
        with blaming(*(("compare_to",) if request.compare_to else ("recipe", "compare_to"))):
            report, manifest = artifacts.find(service.store, _published(service, compared), "report")
            resolved["compare_to"] = open_report(service.store.where(report)).uri
        ids.append(manifest.id)
    new = New(
        kind="report",
        name=recipe.name,
        key=digest_of({"recipe": recipe.model_dump(mode="json", exclude={"compare_to"}), "ids": ids}),
        request=request.model_dump(mode="json"),
        resolved=resolved,
        workers=request.workers,
        created_by=caller,
    )
    return Understood(new, (path, subject))


def plan_report(understood: Understood, same_as: str | None) -> ReportPlan:
    """What a report would be over."""
    path: str
    subject: Subject
    path, subject = understood.facts
    return ReportPlan(checkpoint=artifacts.result_of(path, subject.checkpoint.manifest), same_as=same_as)


def _model(service: Service, place: str) -> str:
    """Where a model is that a run starts from: a checkpoint of this store, or a directory under a root.

    Raises InputError.
    """
    if not place.startswith("/"):
        return service.store.where(_checkpoint(service, _published(service, place)))
    found = roots.resolve(place, service.settings.raw_root_uris)
    if found != place:
        raise InputError(f"{place} is not a plain path; write {found}")
    return found


def _tokenizer(recipe: DataRecipe, allowed: Sequence[str]) -> list[Any] | None:
    """What tells one content of a tokenizer's file from another. allowed: the roots, and the service's own store, which
    has the tokenizers of its mixtures. Raises InputError.
    """
    field, given = recipe.tokenizer.existing
    if given is None and recipe.tokenizer.grown is None:
        return None
    if given is None:
        raise InputError(f"tokenizer.{field} is missing; name the tokenizer that is to be extended")
    path = Path(roots.resolve(given, allowed))
    if str(path) != given:
        raise InputError(f"{given} is not a plain absolute path; write {path}")
    names = ("tokenizer.json", "manifest.json")  # a mixture has no tokenizer of its own, and names one
    file = next((path / name for name in names if (path / name).is_file()), path / names[0]) if path.is_dir() else path
    if not file.is_file():
        raise InputError(f"{file} is no file; give a directory with a tokenizer.json, or that file")
    status = file.stat()
    return [str(file), status.st_size, status.st_mtime_ns]


def _evaluations(recipe: DataRecipe, raw: str, until: str, allowed: Sequence[str]) -> dict[str, list[RawFile]]:
    """The evaluation files of each set. Raises InputError, before a place is looked into that is not under a root."""
    against = recipe.decontaminate.against if recipe.decontaminate else {}
    for pattern in (pattern for one in against.values() for pattern in one.files if is_local(pattern)):
        directory = split(pattern)[0].rstrip("/")
        if roots.resolve(directory, allowed) != directory:
            raise InputError(f"{pattern} does not begin with a plain absolute path; write it relative to raw")
    found = evaluation_listing(recipe, raw, until)
    roots.require_under((file.uri for files in found.values() for file in files), allowed)
    return found


def _published(service: Service, reference: str) -> str:
    with service.database.read() as session:
        return artifacts.published_by(session, reference)


def _checkpoint(service: Service, reference: str) -> str:
    """The path of a checkpoint: itself, or the newest of a run. Raises InputError."""
    path = reference if reference.startswith("runs/") else f"runs/{reference}"
    if path.count("/") == 1:
        newest = artifacts.newest_checkpoint(service.store, path)
        if newest is not None:
            return newest
        if reference.startswith("runs/"):
            raise InputError(f"{reference} has published no checkpoint; there is nothing to score")
    return artifacts.find(service.store, reference, "checkpoint")[0]


@lru_cache(maxsize=1)
def _read_sizes(file: Path, changed_ns: int) -> dict[str, Any]:
    return dict(read_yaml(file))


def _sizes(file: Path | None) -> dict[str, Any]:
    """What the service's own sizes.yaml holds now."""
    if file is None:
        raise ProblemError(
            422, "this service has no sizes of its own; send what your sizes.yaml holds", field=("sizes",)
        )
    return _read_sizes(file, file.stat().st_mtime_ns)


def _only(resolved: Resolved) -> dict[str, Any]:
    """The one size that a run takes: later changes of the service's file are not for it."""
    return {resolved.recipe.name: {resolved.name: resolved.size.model_dump(mode="json", exclude_none=True)}}


def _source_plan(source: Estimate) -> SourcePlan:
    return SourcePlan(files=source.files, bytes=source.bytes, documents=source.documents, tokens=source.tokens)
