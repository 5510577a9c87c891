"""`evalkit positions`: does a model use a longer context, and does it bear one that it was not trained on?"""

from __future__ import annotations

import argparse
import re
from typing import TYPE_CHECKING

from manifest.errors import RecipeError
from manifest.fields import flag_count

if TYPE_CHECKING:  # torch takes a second to import
    from evalkit.checkpoint import Subject


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    positions = commands.add_parser(
        "positions",
        help="loss by position in a window, also beyond the trained length",
        description="Measures the loss of checkpoints of one mixture on its long held-out documents, by how many "
        "tokens of the window were read before, and writes positions.json, positions.md and positions.png; prints the "
        "path of the first.",
        epilog="example: evalkit positions short=store/runs/…/checkpoints/00000500 mixed=store/runs/… "
        "--lengths 128,512,2048 --interpolate --out positions",
    )
    positions.add_argument(
        "checkpoints",
        metavar="[NAME=]CHECKPOINT",
        nargs="+",
        help="a checkpoint, or a run's directory for its newest, with the name that its curve shall have (default: the "
        "run's); differences are from the first",
    )
    positions.add_argument(
        "--lengths",
        metavar="TOKENS",
        help="tokens of windows, with commas; documents are at least as long as the longest (default: 1, 2 and 4 times "
        "the longest that was trained)",
    )
    positions.add_argument(
        "--interpolate",
        action="store_true",
        help="ALiBi also with position interpolation at every length beyond the trained one: slopes are divided by "
        "length / trained length",
    )
    positions.add_argument(
        "--limit", default="100", metavar="N", help="documents per source, at most (default %(default)s)"
    )
    positions.add_argument(
        "--windows", default="4", metavar="N", help="of each document, at most (default %(default)s)"
    )
    positions.add_argument(
        "--batch-tokens", default="8k", metavar="N", help="tokens in the model at once (default %(default)s)"
    )
    positions.add_argument("--out", default="positions", help="directory for the results (default %(default)s)")
    positions.add_argument("--json", action="store_true", help="print the numbers instead of the path; still write all")
    positions.set_defaults(command=_positions)


def _positions(arguments: argparse.Namespace) -> None:
    from dataproc import progress
    from dataproc.commands.flags import result_directory
    from dataproc.dedup.pages import publish
    from evalkit.positions import Options, measure
    from evalkit.positions_page import conclusions, page, picture, table

    out = result_directory(arguments.out)
    options = Options(
        lengths=parse_lengths(arguments.lengths),
        interpolate=arguments.interpolate,
        limit=flag_count("--limit", arguments.limit),
        windows=flag_count("--windows", arguments.windows),
        batch_tokens=flag_count("--batch-tokens", arguments.batch_tokens),
    )
    found = measure(open_subjects(arguments.checkpoints), options)
    progress.console.print(table(found))
    for line in conclusions(found):
        progress.say(line)
    path = publish(out, "positions", found, page(found), picture(found))
    print(found.model_dump_json() if arguments.json else path)


def open_subjects(given: list[str]) -> dict[str, Subject]:
    """Label → checkpoint. Raises ArtifactError as `open_subject` does, and RecipeError if two have one label."""
    from evalkit.checkpoint import open_newest

    found: dict[str, Subject] = {}
    for argument in given:
        label, uri = _named(argument)
        subject = open_newest(uri)
        label = label or subject.record.run
        if label in found:
            raise RecipeError(
                f"{argument}: there is another checkpoint named {label}; give each a name, such as "
                f"{label}-{subject.record.step}={uri}"
            )
        found[label] = subject
    return found


def _named(argument: str) -> tuple[str, str]:
    """NAME=CHECKPOINT → both; what has a slash before its = is a path."""
    match = re.fullmatch(r"([^/=]+)=(.+)", argument)
    return (match[1], match[2]) if match else ("", argument)


def parse_lengths(text: str | None) -> tuple[int, ...]:
    """--lengths, from the shortest, each once. Raises RecipeError."""
    found = {flag_count("--lengths", part.strip(), least=2) for part in text.split(",")} if text is not None else set()
    return tuple(sorted(found))
