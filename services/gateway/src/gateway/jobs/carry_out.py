"""What the tasks are: the same calls as the commands `dataproc build`, `trainer fit` and `evalkit score` make.

Several workers are actors on the cluster that the job runs on. One worker is this process; but one that trains is an
actor as well where Ray has to say which machine, or which GPU, is its own.
"""

from __future__ import annotations

import sys
from typing import Any

from gateway.jobs.attempt import STOPPED, Attempt
from gateway.jobs.journal import Job, Task
from gateway.messages import BuildRequest, ReportRequest, Result, RunRequest
from manifest.artifact import Opened, open_artifact
from manifest.checkpoint import Checkpoint
from manifest.fields import validate
from manifest.identity import digest_of
from manifest.store import Store, open_store

RUN_WAIT_S = 60.0
"""The last worker of a killed attempt may live on for a few seconds."""


def build(job: Job, task: Task, attempt: Attempt) -> Result:
    """A data recipe over raw files → a mixture, or what the stage `until` publishes."""
    from dataproc.pipeline import Pipeline
    from dataproc.recipe import DataRecipe
    from dataproc.stage import Build
    from dataproc.workers import open_workers

    request = BuildRequest.model_validate(task.request)
    recipe = validate(DataRecipe, request.recipe, "recipe")
    store = open_store(job.store)
    with open_workers("serial" if task.workers == 1 else f"ray:{task.workers}") as workers:
        pipeline = Pipeline(recipe, task.resolved["raw"], Build(store, workers), request.options.until)
        planned = pipeline.plan()
        attempt.say(identity=planned.identity)
        attempt.say(state="running")
        published = [item for item in pipeline.run(planned) if isinstance(item, Opened)]
    attempt.say(state="publishing")
    return _result(published, store, recipe.name)


def run(job: Job, task: Task, attempt: Attempt) -> Result:
    """A train recipe over a mixture → the run's last checkpoint."""
    from trainer.fit import FitOptions, fit
    from trainer.launch import Workers, gpus_here
    from trainer.recipe import TrainRecipe
    from trainer.run import local_store
    from trainer.sizes import resolve_recipe

    request = RunRequest.model_validate(task.request)
    recipe = validate(TrainRecipe, request.recipe, "recipe").with_models(task.resolved.get("models", {}))
    store = local_store(job.store)
    options = FitOptions(
        recipe=resolve_recipe(recipe, task.resolved["sizes"], request.size, store=store),
        mixture=task.resolved["mixture"],
        out=job.store,
        workers=Workers(None if task.workers == 1 and job.alone and not gpus_here() else "ray", task.workers),
        tokens=request.tokens,
        seed=request.seed,
        wait_s=RUN_WAIT_S,
    )
    attempt.say(state="running")
    uri = fit(options)
    attempt.say(state="publishing")
    last = open_artifact(uri, kind="checkpoint")
    assert isinstance(last.manifest, Checkpoint)
    if last.manifest.step < last.manifest.timeline.total_steps:
        sys.exit(STOPPED)  # no last line: the next attempt goes on from here
    return _result([last], open_store(job.store), recipe.name)


def report(job: Job, task: Task, attempt: Attempt) -> Result:
    """An eval recipe over a checkpoint → a report."""
    from evalkit.checkpoint import open_subject
    from evalkit.cli import BATCH_TOKENS
    from evalkit.compare import open_report
    from evalkit.recipe import EvalRecipe
    from evalkit.report import score
    from manifest.fields import parse_count

    request = ReportRequest.model_validate(task.request)
    recipe = validate(EvalRecipe, request.recipe, "recipe")
    compare_to = task.resolved.get("compare_to")
    compared = open_report(compare_to) if compare_to else None
    subject = open_subject(task.resolved["checkpoint"], task.resolved.get("heldout_of"))
    attempt.say(state="running")
    store = open_store(job.store)
    batch_tokens: Any = parse_count(BATCH_TOKENS)
    made = score(recipe, subject, store, compared=compared, batch_tokens=batch_tokens)
    attempt.say(state="publishing")
    return _result([made], store, recipe.name)


def _result(published: list[Opened], store: Store, name: str) -> Result:
    """What was published, as paths in the store; several artifacts are named by the first."""
    paths = [item.uri.removeprefix(store.uri).lstrip("/") for item in published]
    if len(published) == 1:
        manifest = published[0].manifest
        return Result(path=paths[0], kind=manifest.kind, name=manifest.name, id=manifest.id)
    return Result(
        path=paths[0],
        kind=published[0].manifest.kind,
        name=name,
        id=digest_of([item.manifest.id for item in published]),
        also=paths[1:],
    )
