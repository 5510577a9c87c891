"""dataproc overlap: what sources share."""

from __future__ import annotations

import argparse

from dataproc import progress
from dataproc.commands.flags import Commands, add_result, result_directory


def add(commands: Commands[argparse.ArgumentParser]) -> None:
    overlap = commands.add_parser(
        "overlap",
        help="documents and tokens that sources share, and who would lose what to whom",
        description="Reads clusters/global (a build has it if its scope is global, or if it holds documents out) and "
        "writes overlap.json, overlap.md and overlap.png; prints the path of the first.",
        epilog="example: dataproc overlap store/mixtures/demo-9f2c --out overlap",
    )
    overlap.add_argument("artifacts", metavar="ARTIFACT", nargs="+", help="a mixture, or what it was made from")
    add_result(overlap, "overlap")
    overlap.set_defaults(run=_overlap)


def _overlap(arguments: argparse.Namespace) -> None:
    from dataproc.dedup import pages, pictures
    from dataproc.dedup.overlap import overlap
    from dataproc.dedup.reached import parse_keep

    out = result_directory(arguments.out)
    found = overlap(arguments.artifacts, keep=parse_keep(arguments.keep))
    progress.console.print(pages.overlap_table(found))
    path = pages.publish(out, "overlap", found, pages.overlap_page(found), pictures.overlap_png(found))
    print(found.model_dump_json() if arguments.json else path)
