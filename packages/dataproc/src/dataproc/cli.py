"""`dataproc`: raw text to a mixture. Results go to stdout, everything else to stderr."""

from __future__ import annotations

import argparse
import os
import sys
from functools import partial
from pathlib import Path

from dataproc import progress
from manifest.artifact import Opened
from manifest.errors import InputError, RecipeError, run_command
from manifest.store import DRAFTS


def main() -> None:
    """The console script."""
    arguments = _parser().parse_args()
    sys.exit(run_command(partial(arguments.run, arguments)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="dataproc", description="Raw text → a deduplicated training mixture.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _build_parser(commands)
    _gather_parser(commands)
    _overlap_parser(commands)
    _whatif_parser(commands)
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
    _add_workers(build)
    build.add_argument("--until", metavar="STAGE", default="mixtures", help="stop after a stage: documents … mixtures")
    build.add_argument("--dry-run", action="store_true", help="say what would be built and re-used; build nothing")
    build.set_defaults(run=_build)


def _add_workers(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--workers",
        default=f"local:{len(os.sched_getaffinity(0))}",
        help="serial, local:N, ray or ray://host:port (default %(default)s)",
    )


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


def _overlap_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    overlap = commands.add_parser(
        "overlap",
        help="documents and tokens that sources share, and who would lose what to whom",
        description="Reads clusters/global (a build has it if its scope is global, or if it holds documents out) and "
        "writes overlap.json, overlap.md and overlap.png; prints the path of the first.",
        epilog="example: dataproc overlap store/mixtures/demo-9f2c --out overlap",
    )
    overlap.add_argument("artifacts", metavar="ARTIFACT", nargs="+", help="a mixture, or what it was made from")
    _add_result(overlap, "overlap")
    overlap.set_defaults(run=_overlap)


def _whatif_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    whatif = commands.add_parser(
        "whatif",
        help="documents and tokens that dedup would keep, for each threshold and scope",
        description="Finds out from the signatures of a build (or of several) what builds with other thresholds and "
        "scopes would keep, before hold-out, and writes whatif.json, whatif.md and whatif.png; prints the path of the "
        "first. The bands are those of the lowest threshold.",
        epilog="example: dataproc whatif store/mixtures/demo-9f2c --thresholds 0.5:0.95:0.05 --out whatif",
    )
    whatif.add_argument("artifacts", metavar="ARTIFACT", nargs="+", help="a mixture, or signatures in order of sources")
    whatif.add_argument(
        "--thresholds", default="0.5:0.95:0.05", help="first:last:step, or a list with commas (default %(default)s)"
    )
    whatif.add_argument("--bands", metavar="COUNT,ROWS", help="other bands than the lowest threshold's")
    _add_result(whatif, "whatif")
    _add_workers(whatif)
    whatif.set_defaults(run=_whatif)


def _add_result(parser: argparse.ArgumentParser, name: str) -> None:
    parser.add_argument("--out", default=name, help="directory for the results (default %(default)s)")
    parser.add_argument("--json", action="store_true", help="print the numbers instead of the path; still write all")
    parser.add_argument(
        "--keep", metavar="KEYS", help="who survives, such as source_order,longest,id; default: as built"
    )


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
    recipe = read(arguments.recipe)
    store = open_store(arguments.out)
    if arguments.dry_run:
        for line in lines(estimate(recipe, arguments.raw)):
            progress.say(line)
        Pipeline(recipe, arguments.raw, Build(store, Serial(), dry=True), arguments.until).run()
        progress.say("dry run: nothing was built")
        return
    with open_workers(arguments.workers) as workers:
        published = Pipeline(recipe, arguments.raw, Build(store, workers), arguments.until).run()
    for item in published:
        assert isinstance(item, Opened)
        show(item)
        print(item.uri)


def _overlap(arguments: argparse.Namespace) -> None:
    from dataproc.dedup import pages, pictures
    from dataproc.dedup.overlap import overlap
    from dataproc.dedup.reached import parse_keep

    out = _result_directory(arguments.out)
    found = overlap(arguments.artifacts, keep=parse_keep(arguments.keep))
    progress.console.print(pages.overlap_table(found))
    path = pages.publish(out, "overlap", found, pages.overlap_page(found), pictures.overlap_png(found))
    print(found.model_dump_json() if arguments.json else path)


def _result_directory(out: str) -> Path:
    if "://" in out:
        raise InputError(f"--out {out}: results are written to a directory on this machine; give its path")
    return Path(out)


def _whatif(arguments: argparse.Namespace) -> None:
    from dataproc.dedup import pages, pictures
    from dataproc.dedup.reached import parse_keep
    from dataproc.dedup.whatif import ask, parse_bands, parse_thresholds, whatif
    from dataproc.workers import open_workers

    out = _result_directory(arguments.out)
    asked = ask(
        arguments.artifacts,
        parse_thresholds(arguments.thresholds),
        bands=parse_bands(arguments.bands),
        keep=parse_keep(arguments.keep),
    )
    with open_workers(arguments.workers) as workers:
        found = whatif(asked, workers=workers, scratch=out / DRAFTS)
    progress.console.print(pages.whatif_table(found))
    path = pages.publish(out, "whatif", found, pages.whatif_page(found), pictures.whatif_png(found))
    print(found.model_dump_json() if arguments.json else path)


def _gather(arguments: argparse.Namespace) -> None:
    from dataproc.gather import gather

    gather(Path(arguments.out), limit_bytes=int(arguments.limit_mb * 1e6))
    print(Path(arguments.out).absolute())


if __name__ == "__main__":
    main()
