"""dataproc gather: real text that is already on this machine."""

from __future__ import annotations

import argparse
from pathlib import Path

from dataproc.commands.flags import Commands


def add(commands: Commands[argparse.ArgumentParser]) -> None:
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


def _gather(arguments: argparse.Namespace) -> None:
    from dataproc.gather import gather

    gather(Path(arguments.out), limit_bytes=int(arguments.limit_mb * 1e6))
    print(Path(arguments.out).absolute())
