"""`dataproc`: raw text to a mixture. Results go to stdout, everything else to stderr."""

from __future__ import annotations

import argparse
import os
import sys
from functools import partial

from dataproc import progress
from dataproc.dedup.index.command import index_parser
from manifest.artifact import Opened
from manifest.errors import RecipeError, run_command


def main() -> None:
    """The console script."""
    arguments = _parser().parse_args()
    sys.exit(run_command(partial(arguments.run, arguments)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="dataproc", description="Raw text → a deduplicated training mixture.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _build_parser(commands)
    _gather_parser(commands)
    index_parser(commands)
    return parser


def _build_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    build = commands.add_parser(
        "build",
        help="build a mixture (or stop earlier) from a recipe and raw files",
        description="Builds what a recipe says and prints the path of what was published. The same command again "
        "re-uses what is there and continues what was stopped.",
        epilog="example: dataproc build recipes/demo/data.yaml --raw raw --out store --workers local:2",
    )
    build.add_argument("recipe", help="a data recipe (YAML)")
    build.add_argument("--raw", required=True, help="directory or URI that the recipe's files are relative to")
    build.add_argument("--out", required=True, help="the store: a directory or s3://bucket/prefix")
    build.add_argument(
        "--workers",
        default=f"local:{len(os.sched_getaffinity(0))}",
        help="serial, local:N, ray or ray://host:port (default %(default)s)",
    )
    build.add_argument("--until", metavar="STAGE", default="mixtures", help="stop after a stage: documents … mixtures")
    build.add_argument(
        "--without",
        action="append",
        default=[],
        metavar="TOMBSTONES",
        help="leave out what these name: a JSONL file of {document: id} and {text: text}, or what `index remove` "
        "printed; repeatable",
    )
    build.add_argument("--dry-run", action="store_true", help="say what would be built and re-used; build nothing")
    build.set_defaults(run=_build)


def _gather_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    gather = commands.add_parser(
        "gather",
        help="collect real text that is already on this machine",
        description="Writes code, documentation, licence texts and package descriptions found on this machine as raw "
        "sources, with the natural near-duplicates they have.",
        epilog="example: dataproc gather --out raw --limit-mb 40",
    )
    gather.add_argument("--out", required=True, help="directory for raw/<source>/*.jsonl.zst")
    gather.add_argument(
        "--limit-mb", type=float, default=40.0, help="stop at this much text in all (default %(default)s)"
    )
    gather.set_defaults(run=_gather)


def _build(arguments: argparse.Namespace) -> None:
    from dataproc.dedup import removal, stones
    from dataproc.estimate import estimate, lines
    from dataproc.pipeline import STAGES, Pipeline
    from dataproc.recipe import read
    from dataproc.report import show
    from dataproc.stage import Build
    from dataproc.workers import Serial, open_workers
    from manifest.fields import nearest
    from manifest.store import open_store

    if arguments.until not in STAGES:
        raise RecipeError(f"--until {arguments.until}: no such stage{nearest(arguments.until, list(STAGES))}")
    recipe = read(arguments.recipe)
    store = open_store(arguments.out)
    left_out = stones.Stones.of([stone for path in arguments.without for stone in stones.read(path)])
    if arguments.dry_run:
        for line in lines(estimate(recipe, arguments.raw)):
            progress.say(line)
        Pipeline(recipe, arguments.raw, Build(store, Serial(), dry=True), arguments.until, left_out).run()
        if left_out:
            progress.say(removal.consequences(trains_tokenizer=recipe.tokenizer.train is not None))
        progress.say("dry run: nothing was built")
        return
    with open_workers(arguments.workers) as workers:
        published = Pipeline(recipe, arguments.raw, Build(store, workers), arguments.until, left_out).run()
    for item in published:
        assert isinstance(item, Opened)
        show(item)
        print(item.uri)


def _gather(arguments: argparse.Namespace) -> None:
    from pathlib import Path

    from dataproc.gather import gather

    gather(Path(arguments.out), limit_bytes=int(arguments.limit_mb * 1e6))
    print(Path(arguments.out).absolute())


if __name__ == "__main__":
    main()
