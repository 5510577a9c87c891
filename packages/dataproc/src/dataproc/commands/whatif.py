"""dataproc whatif: what other thresholds and scopes would keep."""

from __future__ import annotations

import argparse

from dataproc import progress
from dataproc.commands.flags import Commands, add_result, add_workers, memory_of, result_directory
from manifest.store import DRAFTS


def add(commands: Commands[argparse.ArgumentParser]) -> None:
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
    add_result(whatif, "whatif")
    add_workers(whatif)
    whatif.set_defaults(run=_whatif)


def _whatif(arguments: argparse.Namespace) -> None:
    from dataproc.dedup import pages, pictures
    from dataproc.dedup.reached import parse_keep
    from dataproc.dedup.whatif import ask, parse_bands, parse_thresholds, whatif
    from dataproc.workers import open_workers

    out = result_directory(arguments.out)
    asked = ask(
        arguments.artifacts,
        parse_thresholds(arguments.thresholds),
        bands=parse_bands(arguments.bands),
        keep=parse_keep(arguments.keep),
    )
    with open_workers(arguments.workers, memory_of(arguments)) as workers:
        found = whatif(asked, workers=workers, scratch=out / DRAFTS)
    progress.console.print(pages.whatif_table(found))
    path = pages.publish(out, "whatif", found, pages.whatif_page(found), pictures.whatif_png(found))
    print(found.model_dump_json() if arguments.json else path)
