"""The commands that look at what there is, and those that cancel and retry."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from heapq import merge
from itertools import islice
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from gateway.client import KINDS, Client
from gateway.commands.connection import connected
from gateway.commands.screen import age, count, print_json, print_table, progress_line, result, say, state_of
from gateway.commands.watch import duration
from gateway.failures import ProblemError, Unreachable, explained, printable
from gateway.ledger.states import ENDED
from gateway.messages import Build, Log, Mixture, Report, Run
from manifest.errors import InputError

if TYPE_CHECKING:  # numpy comes with it, which a list of builds has no use for
    from manifest.lineage import Node

AnyEntry = Build | Run | Report

LOG_EVERY_S = 1.0
LABEL = 10
ENTRY_COLUMNS = ("id", "name", "state", "progress", "age")


def cancel(arguments: argparse.Namespace) -> None:
    """The body of `winnow cancel`."""
    _each(arguments, Client.cancel)


def retry(arguments: argparse.Namespace) -> None:
    """The body of `winnow retry`."""
    _each(arguments, Client.retry)


def _each(arguments: argparse.Namespace, act: Any) -> None:
    """Does all that can be done, then raises the last ProblemError if there were some."""
    failed: ProblemError | None = None
    with connected(arguments) as client:
        for entry_id in arguments.ids:
            try:
                entry = act(client, entry_id)
            except ProblemError as error:
                if failed is not None:
                    say(f"error: {failed}")
                failed = error
            else:
                result(f"{entry.id}  {state_of(entry)}")
    if failed is not None:
        raise failed


def ls(arguments: argparse.Namespace) -> None:
    """The body of `winnow ls`."""
    with connected(arguments) as client:
        if arguments.what == "mixtures":
            if arguments.state:
                raise InputError("--state: every mixture is there; builds, runs and reports have states")
            mixtures = list(client.mixtures(arguments.limit))
            print_json(mixtures) if arguments.json else print_mixtures(mixtures)
            return
        entries = list(islice(_entries(client, arguments), arguments.limit))
        print_json(entries) if arguments.json else print_entries(entries)


def _entries(client: Client, arguments: argparse.Namespace) -> Iterator[AnyEntry]:
    """Newest first, of the kind that is asked for, or of all."""
    kinds = [kind for kind in KINDS if arguments.what in (None, f"{kind}s")]
    lists = (client.list(kind, arguments.state, arguments.limit) for kind in kinds)
    return merge(*lists, key=lambda entry: entry.created, reverse=True)


def print_entries(entries: list[AnyEntry]) -> None:
    """A line each, on stdout."""
    print_table(ENTRY_COLUMNS, map(entry_row, entries), may_shrink=("name", "progress"))


def entry_row(entry: AnyEntry) -> tuple[str, ...]:
    """The cells of ENTRY_COLUMNS."""
    return entry.id, _title(entry), state_of(entry), _how_far(entry), age(entry.created)


def _title(entry: AnyEntry) -> str:
    label = entry.request.label
    return entry.name if label is None else f"{entry.name} ({label})"


def _how_far(entry: AnyEntry) -> str:
    if entry.state in ENDED:
        return duration(entry)
    return progress_line(entry.progress)


def print_mixtures(mixtures: list[Mixture]) -> None:
    """A line each, on stdout."""
    rows = [
        (m.path, count(m.tokens), count(m.documents), ", ".join(m.phases), age(m.created) if m.created else "")
        for m in mixtures
    ]
    print_table(("path", "tokens", "documents", "phases", "age"), rows, may_shrink=("phases",))


def show(arguments: argparse.Namespace) -> None:
    """The body of `winnow show`."""
    with connected(arguments) as client:
        is_entry = arguments.reference.startswith(tuple(f"{kind}-" for kind in KINDS))
        found = client.get(arguments.reference) if is_entry else client.mixture(arguments.reference)
    if arguments.json:
        print_json(found)
        return
    for line in _mixture_lines(found) if isinstance(found, Mixture) else entry_lines(found):
        result(line)


def entry_lines(entry: AnyEntry) -> Iterator[str]:
    """All that is known of an entry, for a person."""
    yield f"{entry.id}  {_title(entry)}  {state_of(entry)}"
    yield from _facts(
        {
            "progress": progress_line(entry.progress) if entry.state not in ENDED else "",
            "note": entry.note if entry.failure is None else None,
            "asked for": f"{entry.created:%Y-%m-%d %H:%M:%S %Z} by {entry.created_by}, {age(entry.created)} ago",
            "took": duration(entry),
            "attempt": entry.attempt if entry.attempt > 1 else None,
            "job": entry.job,
            **_request_facts(entry),
        }
    )
    if entry.result is not None:
        yield from _facts({"result": entry.result.path, "its id": entry.result.id})
        yield from _facts({"also": "\n".join(entry.result.also)})
    if entry.failure is not None:
        yield from _facts({"failure": explained(entry.failure.detail, entry.failure.errors)})


def _request_facts(entry: AnyEntry) -> dict[str, object]:
    if isinstance(entry, Build):
        return {"raw": entry.request.raw, "workers": entry.request.options.workers, "same as": entry.same_as}
    if isinstance(entry, Run):
        asked = entry.request
        return {"mixture": asked.mixture, "size": asked.size, "tokens": asked.tokens, "path": entry.path}
    report = entry.request
    return {"checkpoint": report.checkpoint, "compare to": report.compare_to, "held out by": report.heldout}


def _mixture_lines(mixture: Mixture) -> Iterator[str]:
    yield mixture.path
    yield from _facts(
        {
            "id": mixture.id,
            "made": f"{mixture.created:%Y-%m-%d %H:%M:%S %Z}" if mixture.created else None,
            "phases": ", ".join(mixture.phases),
            "tokens": f"{mixture.tokens:,}",
            "documents": f"{mixture.documents:,}",
        }
    )


def _facts(facts: dict[str, object]) -> Iterator[str]:
    """A line for each that is known."""
    indent = "\n" + " " * (LABEL + 4)
    for name, value in facts.items():
        if value not in (None, ""):
            yield f"  {name:<{LABEL}}  {indent.join(str(value).splitlines())}"


def logs(arguments: argparse.Namespace) -> None:
    """The body of `winnow logs`."""
    with connected(arguments) as client:
        log = _print_log(client, arguments.id, None)
        if not arguments.follow:
            if log.next_offset == 0:
                say(f"{arguments.id} has no log yet")
            return
        away = False
        while True:
            try:
                ended = client.get(arguments.id).state in ENDED
                log = _print_log(client, arguments.id, log)
                away = False
            except Unreachable as error:
                ended = False
                if not away:
                    say(f"{error}\n  waiting for it to come back")
                away = True
            if ended:
                return
            time.sleep(LOG_EVERY_S)


def _print_log(client: Client, entry_id: str, seen: Log | None) -> Log:
    """Prints what the log says beyond `seen`; a new attempt has a log of its own, from its beginning."""
    log = client.log(entry_id, seen.next_offset if seen else 0)
    if seen is not None and log.attempt != seen.attempt:
        say(f"{entry_id}: attempt {log.attempt}")
        log = client.log(entry_id)
    while log.text:
        sys.stdout.write(printable(log.text))
        sys.stdout.flush()
        log = client.log(entry_id, log.next_offset)
    return log


def lineage(arguments: argparse.Namespace) -> None:
    """The body of `winnow lineage`."""
    from manifest.lineage import render

    with connected(arguments) as client:
        tree = client.lineage(arguments.reference)
    if arguments.json:
        print_json(tree)
    else:
        result(render(_node(tree, {}), every=arguments.all))


def _node(tree: dict[str, Any], known: dict[tuple[str, str], Node]) -> Node:
    """What manifest.lineage.as_json made of a node → the node; what is repeated there is one object here."""
    from manifest.lineage import Node

    key = tree["uri"], tree["id"]
    if not tree.get("repeated"):
        children = tuple(_node(child, known) for child in tree["children"])
        known[key] = Node(tree["kind"], tree["name"], tree["id"], tree["uri"], tree["state"], children)
    return known[key]


def exposure(arguments: argparse.Namespace) -> None:
    """The body of `winnow exposure`."""
    from manifest.sightings import Sightings, describe

    with connected(arguments) as client:
        answer = client.exposure(arguments.document)
    if arguments.json:
        print_json(answer)
        return
    try:
        result(describe(TypeAdapter(Sightings).validate_python(answer)))
    except ValidationError:  # more than is known here
        print_json(answer)
