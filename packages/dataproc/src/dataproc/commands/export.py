"""dataproc export: a mixture for other programs."""

from __future__ import annotations

import argparse

from dataproc.commands.flags import Commands, add_workers, memory_of, result_directory
from manifest.errors import RecipeError

FORMATS = ("megatron", "parquet")


def add(commands: Commands[argparse.ArgumentParser]) -> None:
    export = commands.add_parser(
        "export",
        help="write a mixture for Megatron-LM, GPT-NeoX, NeMo or Hugging Face datasets",
        description="megatron: the tokens as indexed datasets, a blend per phase and the tokenizer. parquet: the "
        "documents behind the tokens as a dataset for `datasets.load_dataset`, with a card; workers are for these. "
        "Prints the path.",
        epilog="example: dataproc export store/mixtures/demo-9f2c --format megatron --out export/demo",
    )
    export.add_argument("mixture", help="directory or URI of a mixture")
    export.add_argument("--format", required=True, choices=FORMATS, help="for which programs")
    export.add_argument("--out", required=True, help="directory for the export; it must be new or empty")
    export.add_argument(
        "--join",
        metavar="BYTES",
        default="100G",
        help="megatron: streams of up to so many bytes become one dataset, larger ones one per shard, which need no "
        "space of their own beside the store (default %(default)s; 0: join nothing)",
    )
    add_workers(export)
    export.set_defaults(run=_export)


def _export(arguments: argparse.Namespace) -> None:
    from dataproc.export import megatron, parquet
    from dataproc.workers import open_workers

    out = result_directory(arguments.out)
    if arguments.format == "megatron":
        print(megatron.export(arguments.mixture, out, join_bytes=_bytes(arguments.join)).uri)
        return
    asked = parquet.ask(arguments.mixture)
    with open_workers(arguments.workers, memory_of(arguments)) as workers:
        print(parquet.export(asked, out, workers=workers).uri)


def _bytes(given: str) -> int:
    from manifest.fields import parse_count

    try:
        return int(str(parse_count(given)))
    except ValueError as error:
        raise RecipeError(f"--join: {error}") from error
