"""`winnow submit`: a recipe file and flags → a request → an entry, and with --watch what became of it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from dataproc.recipe.reading import read_yaml as read_data_yaml
from gateway.client import Submission
from gateway.commands.connection import connected
from gateway.commands.screen import count, print_json, result, say
from gateway.commands.watch import watch_to_end
from gateway.ledger.states import ENDED
from gateway.messages import (
    Build,
    BuildPlan,
    BuildRequest,
    Entry,
    Report,
    ReportPlan,
    ReportRequest,
    Run,
    RunPlan,
    RunRequest,
)
from manifest.errors import InputError
from manifest.fields import parse_count
from trainer.reading import read_yaml
from trainer.sizes import sizes_file

R = TypeVar("R", bound=BaseModel)

REFERENCES = frozenset({"mixture", "checkpoint", "compare_to", "heldout"})


def submit_build(arguments: argparse.Namespace) -> None:
    """The body of `winnow submit build`."""
    options = {"workers": arguments.workers, "until": arguments.until}
    fields = {
        "recipe": read_data_recipe(arguments.recipe),
        "raw": place_of(arguments.raw),
        "options": _given(options),
        "label": arguments.label,
    }
    _submit(arguments, _request(BuildRequest, fields))


def submit_run(arguments: argparse.Namespace) -> None:
    """The body of `winnow submit run`."""
    fields = {
        "recipe": read_recipe(arguments.recipe),
        "mixture": arguments.mixture,
        "size": arguments.size,
        "sizes": read_sizes(arguments.sizes, arguments.recipe),
        "tokens": _count(arguments.tokens),
        "seed": arguments.seed,
        "workers": arguments.workers,
        "group": arguments.group,
        "label": arguments.label,
    }
    _submit(arguments, _request(RunRequest, fields))


def submit_report(arguments: argparse.Namespace) -> None:
    """The body of `winnow submit report`."""
    fields = {
        "recipe": read_recipe(arguments.recipe),
        "checkpoint": arguments.checkpoint,
        "compare_to": arguments.compare_to,
        "heldout": arguments.heldout,
        "workers": arguments.workers,
        "label": arguments.label,
    }
    _submit(arguments, _request(ReportRequest, fields))


def read_recipe(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file, which JSON can say too. Raises InputError naming file and line."""
    return _as_json(path, read_yaml(path))


def read_data_recipe(path: Path) -> dict[str, Any]:
    """The same of a data recipe, in which `on` is a word. Raises InputError."""
    content = read_data_yaml(path)
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected a mapping of fields, found {type(content).__name__}")
    return _as_json(path, content)


def _as_json(path: Path, content: dict[str, Any]) -> dict[str, Any]:
    try:
        json.dumps(content, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{path} has a value that JSON cannot say ({error}); put it in quotes, or write another"
        ) from (error)
    return content


def read_sizes(given: Path | None, recipe: Path) -> dict[str, Any] | None:
    """--sizes; else the sizes.yaml beside the recipe or beside its directory; else None. Raises InputError."""
    file = given or sizes_file(recipe)
    return None if file is None else read_recipe(file)


def place_of(raw: str) -> str:
    """What --raw names: a local path that exists, made absolute; anything else is the service's to find."""
    return str(Path(raw).absolute()) if "://" not in raw and Path(raw).exists() else raw


def _count(text: str | None) -> int | None:
    """--tokens as a number. Raises InputError."""
    try:
        found = parse_count(text)
    except ValueError as error:
        raise InputError(f"--tokens {text}: {error}") from error
    assert found is None or isinstance(found, int)
    return found


def _given(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _request(model: type[R], fields: dict[str, Any]) -> R:
    """Raises InputError in the words of the command line; the recipe itself is the service's to judge."""
    try:
        return model.model_validate(_given(fields))
    except ValidationError as error:
        raise InputError("\n".join(_flag_errors(error))) from None


def _flag_errors(error: ValidationError) -> Iterable[str]:
    for problem in error.errors(include_url=False):
        place = [str(part) for part in problem["loc"] if part != "options"]
        if place[0] in ("recipe", "sizes"):
            yield f"{'.'.join(place)}: {problem['msg']}"
        elif problem["type"] == "string_pattern_mismatch" and place[0] in REFERENCES:
            yield f"{_flag(place)} {problem['input']}: expected a path in the store (mixtures/demo-9f2c) or an id"
        else:
            yield f"{_flag(place)} {problem['input']}: {problem['msg']}"


def _flag(place: list[str]) -> str:
    return "--" + place[0].replace("_", "-")


def _submit(arguments: argparse.Namespace, request: Submission) -> None:
    with connected(arguments) as client:
        if arguments.dry_run:
            _show_plan(client.plan(request), as_json=arguments.json)
            return
        entry, new = client.submit(request)
        if not new:
            say(f"the same {entry.kind} as {entry.id}, which {_stands(entry)}")
        elif not arguments.watch:  # which says it itself
            say(f"{entry.id}: queued")
        if arguments.watch:
            _finish(watch_to_end(client, entry, arguments), as_json=arguments.json)
        elif arguments.json:
            print_json(entry, indent=None)
        else:
            result(entry.id)


def _stands(entry: Entry) -> str:
    """has succeeded, is queued, has failed …"""
    if entry.state == "cancelled":
        return "was cancelled"
    return f"has {entry.state}" if entry.state in ENDED else f"is {entry.state}"


def _finish(entry: Build | Run | Report, *, as_json: bool) -> None:
    """One line on stdout for what has succeeded."""
    assert entry.result is not None
    if as_json:
        print_json(entry, indent=None)
    else:
        result(entry.result.path)


def _show_plan(plan: BuildPlan | RunPlan | ReportPlan, *, as_json: bool) -> None:
    if plan.same_as:
        say(f"asked for already: {plan.same_as}")
    if as_json:
        print_json(plan)
        return
    for line in plan_lines(plan):
        result(line)
    for warning in plan.warnings if isinstance(plan, BuildPlan) else ():
        say(f"warning: {warning}")


def plan_lines(plan: BuildPlan | RunPlan | ReportPlan) -> Iterable[str]:
    """A plan for a person."""
    if isinstance(plan, ReportPlan):
        yield f"a report over {plan.checkpoint.path}"
    elif isinstance(plan, RunPlan):
        from trainer.plan import Plan, lines

        yield plan.path
        yield from lines(Plan.model_validate(plan.plan))
    else:
        yield "what would be read" if plan.exact else "what would be read, by estimate"
        for name, source in plan.sources.items():
            yield _amount(f"{name}, {source.files:,} files", source.bytes, source.documents, source.tokens)
        yield _amount("in all", plan.bytes, plan.documents, plan.tokens)


def _amount(label: str, size_bytes: int, documents: int, tokens: int) -> str:
    return (
        f"  {label:<28}  {count(size_bytes):>6} raw bytes  {count(documents):>6} documents  {count(tokens):>6} tokens"
    )
