"""`dataproc`: raw text to a mixture. Results go to stdout, everything else to stderr."""

from __future__ import annotations

import argparse
import sys
from functools import partial

from dataproc.commands import build, card, export, fertility, gather, overlap, synth, whatif
from dataproc.dedup.index.command import index_parser
from dataproc.lean import without_pandas
from manifest.errors import run_command


def main() -> None:
    """The console script."""
    arguments = _parser().parse_args()
    without_pandas()
    sys.exit(run_command(partial(arguments.run, arguments)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="dataproc", description="Raw text → a deduplicated training mixture.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in (build, card, overlap, whatif, fertility, export, gather, synth):
        command.add(commands)
    index_parser(commands)
    return parser


if __name__ == "__main__":
    main()
