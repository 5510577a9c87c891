"""`dataproc`: raw text to a mixture. Results go to stdout, everything else to stderr."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from functools import partial

from dataproc import progress
from manifest.artifact import Opened
from manifest.errors import RecipeError, run_command

LEAST_MEMORY = 50_000_000


def main() -> None:
    """The console script."""
    arguments = _parser().parse_args()
    sys.exit(run_command(partial(arguments.run, arguments)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="dataproc", description="Raw text → a deduplicated training mixture.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _build_parser(commands)
    _gather_parser(commands)
    _synth_parser(commands)
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
    build.add_argument(
        "--worker-memory",
        metavar="BYTES",
        default="600M",
        help="what a worker should make do with, such as 600M or 4G, beside one batch of documents; more is spilled to "
        "the store's disk (default %(default)s)",
    )
    build.add_argument("--until", metavar="STAGE", default="mixtures", help="stop after a stage: documents … mixtures")
    build.add_argument(
        "--override",
        metavar="GATE=REASON",
        action="append",
        default=[],
        help="let a gate of the recipe pass, for a reason that is written into the mixture; may be repeated",
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


def _synth_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    synth = commands.add_parser(
        "synth",
        help="make a corpus with planted near-duplicates, and the truth beside it",
        description="Cuts raw text into documents, plants near-duplicates of every grade among them, and writes raw "
        "sources with truth.parquet (id, source, base_id, kind, param) beside. The same request makes the same corpus.",
        epilog="example: dataproc synth recipes/synth/duplicates.yaml --raw raw --documents 20k --out corpus",
    )
    synth.add_argument("recipe", help="a synth recipe (YAML)")
    synth.add_argument("--raw", required=True, help="directory or URI that the recipe's files are relative to")
    synth.add_argument("--documents", required=True, metavar="N", help="how many documents, such as 20k")
    synth.add_argument("--out", required=True, help="directory for the corpus; it must not hold anything else")
    synth.add_argument("--seed", type=int, default=0, help="seeds every choice (default %(default)s)")
    synth.set_defaults(run=_synth)


def _build(arguments: argparse.Namespace) -> None:
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
    recipe = read(arguments.recipe, override=dict(_reasons(arguments.override)))
    store = open_store(arguments.out)
    if arguments.dry_run:
        for line in lines(estimate(recipe, arguments.raw)):
            progress.say(line)
        Pipeline(recipe, arguments.raw, Build(store, Serial(), dry=True), arguments.until).run()
        progress.say("dry run: nothing was built")
        return
    with open_workers(arguments.workers, _memory(arguments.worker_memory)) as workers:
        published = Pipeline(recipe, arguments.raw, Build(store, workers), arguments.until).run()
    for item in published:
        assert isinstance(item, Opened)
        show(item)
        print(item.uri)


def _memory(given: str) -> int:
    from manifest.fields import parse_count

    try:
        count = parse_count(given)
    except ValueError as error:
        raise RecipeError(f"--worker-memory: {error}") from error
    if not isinstance(count, int) or count < LEAST_MEMORY:
        raise RecipeError(f"--worker-memory {given}: expected at least {LEAST_MEMORY // 10**6}M")
    return count


def _reasons(overrides: Sequence[str]) -> Iterator[tuple[str, str]]:
    for override in overrides:
        gate, equals, reason = override.partition("=")
        if not equals or not reason.strip():
            raise RecipeError(f"--override {override}: expected GATE=REASON, such as max_cluster='copies of a licence'")
        yield gate, reason


def _gather(arguments: argparse.Namespace) -> None:
    from pathlib import Path

    from dataproc.gather import gather

    gather(Path(arguments.out), limit_bytes=int(arguments.limit_mb * 1e6))
    print(Path(arguments.out).absolute())


def _synth(arguments: argparse.Namespace) -> None:
    from pathlib import Path

    from dataproc.synth.corpus import synth
    from dataproc.synth.recipe import read
    from manifest.fields import parse_count

    try:
        documents = int(str(parse_count(arguments.documents)))
    except ValueError as error:
        raise RecipeError(f"--documents: {error}") from error
    out = Path(arguments.out)
    synth(read(arguments.recipe), arguments.raw, documents=documents, out=out, seed=arguments.seed)
    print(out.absolute())


if __name__ == "__main__":
    main()
