"""`winnow study`: a grid of recipes → arms, carried out by the service → one table with plots."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from dataproc.recipe.reading import parse_yaml
from gateway.commands.connection import again, connected
from gateway.commands.screen import count, result, say
from gateway.commands.submit import place_of
from gateway.study.arms import Outcome, Place, carry_out
from gateway.study.grid import Arm, Settings, Study, load_study
from gateway.study.pages import write_pages
from gateway.study.results import Documents, cells_of, read_documents
from manifest.errors import InputError, WinnowError
from manifest.fields import parse_count
from trainer.plan import make_plan
from trainer.recipe import TrainRecipe
from trainer.sizes import resolve_recipe


def study(arguments: argparse.Namespace) -> None:
    """The body of `winnow study`."""
    found = load_study(arguments.study, settings_of(arguments.set))
    if arguments.seeds:
        found = found.of_seeds(arguments.seeds)
    if arguments.dry_run:
        for line in plan_lines(found):
            result(line)
        return
    outcomes, path = _carried_out(found, arguments)
    failed = [f"  {o.arm.name}: {o.failure}" for o in outcomes if o.failure is not None]
    if failed:
        lines = "\n".join(failed)
        raise WinnowError(
            f"{len(failed)} of {len(outcomes)} arms failed; {path} has the others, and the same command with --retry "
            f"queues the failed ones again\n{lines}"
        )
    result(str(path))


def _carried_out(found: Study, arguments: argparse.Namespace) -> tuple[list[Outcome], Path]:
    """The outcomes of all arms, and the table; it is written after each seed."""
    out = arguments.out or Path("out") / f"study-{found.recipe.name}"
    outcomes: list[Outcome] = []
    documents: dict[str, Documents] = {}
    with connected(arguments) as client:
        raw, command = place_of(arguments.raw), partial(again, arguments)
        for outcomes in carry_out(found, Place(client, raw, arguments.workers, arguments.retry, say, command)):
            asked = [report.id for o in outcomes for report in (o.report, o.baseline) if report is not None]
            documents |= {report: read_documents(client, report) for report in asked if report not in documents}
            path = write_pages(found.recipe, cells_of(found.recipe, outcomes, documents), out)
            if len(outcomes) < len(found.arms):
                say(f"{path}: {len(outcomes)} of {len(found.arms)} arms")
    return outcomes, path


def settings_of(given: list[str]) -> Settings:
    """--set FIELD=VALUE, the value in YAML. Raises InputError."""
    settings = {}
    for text in given:
        field, equals, value = text.partition("=")
        try:
            settings[field] = parse_yaml(value)
        except yaml.YAMLError as error:
            raise InputError(f"--set {text}: {value!r} is not YAML") from error
        if not equals:
            raise InputError(f"--set {text}: expected FIELD=VALUE, such as train.start_from=runs/base-…")
    return settings


def plan_lines(found: Study) -> Iterator[str]:
    """Each arm with its tokens and FLOPs, as far as the recipes alone can say."""
    total = 0.0
    for arm in found.arms:
        tokens = tokens_of(found, arm)
        flops = flops_of(found, arm, tokens)
        total += flops or 0.0
        said = "tokens: known when its mixture is built" if tokens is None else f"{count(tokens):>7} tokens"
        yield f"{said}  {'FLOPs unknown' if flops is None else f'{flops:.2e} FLOPs'}  {arm.name}"
    yield f"{len(found.arms)} arms" + (f", {total:.2e} FLOPs" if total else "")


def tokens_of(found: Study, arm: Arm) -> int | None:
    """What an arm draws, where the recipes say: the study's tokens, else the phases' totals."""
    if found.recipe.tokens is not None:
        return found.recipe.tokens
    totals = [_total(phase) for phase in arm.data["phases"].values()]
    return None if any(total is None for total in totals) else sum(total or 0 for total in totals)


def _total(phase: dict[str, Any]) -> int | None:
    if phase.get("epochs"):
        return None
    tokens = phase.get("budgets") or phase.get("tokens")
    parts = tokens.values() if isinstance(tokens, dict) else [tokens]
    counts = [parse_count(part) for part in parts]
    return sum(int(str(each)) for each in counts)


def flops_of(found: Study, arm: Arm, tokens: int | None) -> float | None:
    """By the size's own vocabulary, the phases' shares as they are drawn; None where a base, which is the service's,
    would say how large the model is.
    """
    if tokens is None or arm.train.get("start_from"):
        return None
    recipe = TrainRecipe.model_validate(arm.train)
    plan = make_plan(resolve_recipe(recipe, found.sizes or {}, found.recipe.size), mixture=None, tokens=None)
    drawn = [_total(arm.data["phases"][phase.name]) or 0 for phase in plan.phases]
    if not sum(drawn):
        drawn = [1] * len(plan.phases)
    per_token = sum(p.flops_per_token * d for p, d in zip(plan.phases, drawn, strict=True)) / sum(drawn)
    return per_token * tokens
