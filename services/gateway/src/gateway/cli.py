"""`winnow`: asks the service for builds, runs and reports, and shows what becomes of them.

winnow submit build recipes/demo/data.yaml --raw raw --watch     prints the mixture's path when it is there
winnow study STUDY.yaml --raw raw     a grid of recipes, and one table of it
winnow ls · watch ID · show ID · logs ID · cancel ID · retry ID
winnow lineage ID · exposure DOCUMENT
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import get_args

from gateway.commands.connection import connection_flags
from gateway.ledger.states import State
from manifest.errors import run_command

LISTS = ("builds", "runs", "reports", "mixtures")

Commands = argparse._SubParsersAction  # generic only to type checkers
Run = Callable[[argparse.Namespace], None]


def main(argv: Sequence[str] | None = None) -> None:
    """The console script."""
    arguments = _parser().parse_args(argv)
    sys.exit(run_command(partial(arguments.run, arguments)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="winnow", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    submits = commands.add_parser("submit", help="ask for a build, a run or a report").add_subparsers(
        required=True, metavar="KIND"
    )
    _build_parser(submits)
    _run_parser(submits)
    _report_parser(submits)
    _study_parser(commands)
    _watch_parsers(commands)
    _list_parser(commands)
    _look_parsers(commands)
    return parser


def _command(
    commands: Commands[argparse.ArgumentParser], name: str, run: Run, text: str, example: str
) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name, help=text, description=text, epilog=f"example: winnow {example}", parents=[connection_flags()]
    )
    parser.set_defaults(run=run)
    return parser


def _build_parser(submits: Commands[argparse.ArgumentParser]) -> None:
    example = "submit build recipes/demo/data.yaml --raw raw --watch"
    build = _command(submits, "build", _submit_build, "a data recipe over raw files → a mixture", example)
    build.add_argument("recipe", type=Path, help="a data recipe (YAML)")
    build.add_argument("--raw", required=True, metavar="DIR|URI", help="the raw files, under a root of the service")
    build.add_argument("--until", metavar="STAGE", help="stop after this stage (default: mixtures)")
    _submit_flags(build)


def _run_parser(submits: Commands[argparse.ArgumentParser]) -> None:
    example = "submit run recipes/demo/train.yaml --mixture mixtures/demo-9f2c --watch"
    run = _command(submits, "run", _submit_run, "a train recipe over a mixture → checkpoints", example)
    run.add_argument("recipe", type=Path, help="a train recipe (YAML)")
    run.add_argument("--mixture", required=True, metavar="REF", help="the mixture's path in the store, or its id")
    run.add_argument("--size", help="an entry of the sizes (default: the one that the recipe names)")
    run.add_argument(
        "--sizes",
        type=Path,
        metavar="FILE",
        help="a sizes.yaml (default: the one beside the recipe or its directory; else the service's own)",
    )
    run.add_argument("--tokens", help="scale the mixture's draws to so many tokens, such as 100M (default: as drawn)")
    run.add_argument("--seed", type=int, help="of initialisation and order (default: the mixture's)")
    run.add_argument("--group", help="runs of one group that wait together share a job, one after another")
    _submit_flags(run)


def _report_parser(submits: Commands[argparse.ArgumentParser]) -> None:
    example = "submit report recipes/demo/eval.yaml --checkpoint runs/demo-tiny-9f2c/checkpoints/00000120 --watch"
    report = _command(submits, "report", _submit_report, "an eval recipe over a checkpoint → a report", example)
    report.add_argument("recipe", type=Path, help="an eval recipe (YAML)")
    report.add_argument(
        "--checkpoint", required=True, metavar="REF", help="a checkpoint, or a run, of which the newest is taken"
    )
    report.add_argument("--compare-to", metavar="REF", help="another report")
    report.add_argument("--heldout", metavar="REF", help="the mixture whose held-out text is scored (default: its own)")
    _submit_flags(report)


def _study_parser(commands: Commands[argparse.ArgumentParser]) -> None:
    example = "study recipes/bilingual/study.yaml --raw raw --dry-run"
    text = "carry out a grid of recipes arm by arm, and print the path of its table"
    studying = _command(commands, "study", _study, text, example)
    studying.add_argument("study", type=Path, help="a study (YAML)")
    studying.add_argument("--raw", default=".", metavar="DIR|URI", help="the raw files, under a root of the service")
    studying.add_argument("--out", type=Path, metavar="DIR", help="of table and plots (default: out/study-NAME)")
    studying.add_argument(
        "--set", action="append", default=[], metavar="FIELD=VALUE", help="a field of every arm's recipes; repeatable"
    )
    studying.add_argument(
        "--seeds", type=int, nargs="+", default=[], metavar="SEED", help="only these of the study's (default: all)"
    )
    studying.add_argument("--workers", type=int, default=1, metavar="N", help="of each build (default: 1)")
    studying.add_argument("--retry", action="store_true", help="queue again what failed or was cancelled")
    studying.add_argument("--dry-run", action="store_true", help="only list the arms, their tokens and their cost")


def _submit_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--workers", type=int, metavar="N", help="one CPU (or GPU) each (default: 1)")
    parser.add_argument("--label", metavar="TEXT", help="what lists call it beside the recipe's name")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--watch", action="store_true", help="wait for the end; print the result's path in the store")
    what.add_argument("--dry-run", action="store_true", help="only say what it would do")
    parser.add_argument("--json", action="store_true", help="print JSON instead: the plan, or the entry in one line")


def _watch_parsers(commands: Commands[argparse.ArgumentParser]) -> None:
    text = "show progress until it has ended; print the result's path in the store"
    watching = _command(commands, "watch", _watch, text, "watch build-0654f0c2a31b7e9a01")
    watching.add_argument("id", help="of a build, a run or a report")
    watching.add_argument("--json", action="store_true", help="print the entry in one line of JSON instead")
    text = "end work; what is published stays"
    cancel = _command(commands, "cancel", _cancel, text, "cancel build-0654f0c2a31b7e9a01")
    text = "queue again what failed or was cancelled"
    retry = _command(commands, "retry", _retry, text, "retry build-0654f0c2a31b7e9a01")
    for parser in (cancel, retry):
        parser.add_argument("ids", nargs="+", metavar="ID", help="of a build, a run or a report")
    text = "print what the newest attempt has written"
    logs = _command(commands, "logs", _logs, text, "logs run-0654f0c2a31b7e9a01 --follow")
    logs.add_argument("id", help="of a build, a run or a report")
    logs.add_argument("--follow", action="store_true", help="go on until it has ended")


def _list_parser(commands: Commands[argparse.ArgumentParser]) -> None:
    listing = _command(commands, "ls", _ls, "list what there is, newest first", "ls runs --state running")
    listing.add_argument(
        "what", nargs="?", choices=LISTS, metavar="WHAT", help=f"{', '.join(LISTS)} (default: all but mixtures)"
    )
    listing.add_argument(
        "--state",
        action="append",
        default=[],
        choices=get_args(State),
        metavar="STATE",
        help=f"only those that are {', '.join(get_args(State))}; may be repeated",
    )
    listing.add_argument("--limit", type=_limit, default=20, metavar="N", help="not more than so many (default 20)")
    listing.add_argument("--json", action="store_true", help="print a JSON list")


def _limit(text: str) -> int:
    limit = int(text)
    if limit < 1:
        raise argparse.ArgumentTypeError("expected 1 or more")
    return limit


def _look_parsers(commands: Commands[argparse.ArgumentParser]) -> None:
    show = _command(commands, "show", _show, "all about an entry or a mixture", "show build-0654f0c2a31b7e9a01")
    show.add_argument("reference", metavar="ID|PATH", help="an entry's id, or a mixture's path in the store or id")
    text = "draw the tree from an artifact down to the raw files"
    tree = _command(commands, "lineage", _lineage, text, "lineage mixtures/demo-9f2c")
    tree.add_argument("reference", metavar="ID|PATH", help="an artifact's path in the store, or an id")
    tree.add_argument("--all", action="store_true", help="show every raw file")
    text = "tell which mixtures hold a document and which checkpoints have read it"
    trace = _command(commands, "exposure", _exposure, text, "exposure c4/8d3f")
    trace.add_argument("document", metavar="DOCUMENT", help="the id of a document")
    for parser in (show, tree, trace):
        parser.add_argument("--json", action="store_true", help="print JSON")


# The bodies are imported when they run: --help has no use for what they need.


def _submit_build(arguments: argparse.Namespace) -> None:
    from gateway.commands.submit import submit_build

    submit_build(arguments)


def _submit_run(arguments: argparse.Namespace) -> None:
    from gateway.commands.submit import submit_run

    submit_run(arguments)


def _submit_report(arguments: argparse.Namespace) -> None:
    from gateway.commands.submit import submit_report

    submit_report(arguments)


def _study(arguments: argparse.Namespace) -> None:
    from gateway.commands.study import study

    study(arguments)


def _watch(arguments: argparse.Namespace) -> None:
    from gateway.commands.watch import watch

    watch(arguments)


def _cancel(arguments: argparse.Namespace) -> None:
    from gateway.commands.look import cancel

    cancel(arguments)


def _retry(arguments: argparse.Namespace) -> None:
    from gateway.commands.look import retry

    retry(arguments)


def _logs(arguments: argparse.Namespace) -> None:
    from gateway.commands.look import logs

    logs(arguments)


def _ls(arguments: argparse.Namespace) -> None:
    from gateway.commands.look import ls

    ls(arguments)


def _show(arguments: argparse.Namespace) -> None:
    from gateway.commands.look import show

    show(arguments)


def _lineage(arguments: argparse.Namespace) -> None:
    from gateway.commands.look import lineage

    lineage(arguments)


def _exposure(arguments: argparse.Namespace) -> None:
    from gateway.commands.look import exposure

    exposure(arguments)


if __name__ == "__main__":
    main()
