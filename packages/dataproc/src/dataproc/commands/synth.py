"""dataproc synth: corpora with planted near-duplicates, and the truth beside them."""

from __future__ import annotations

import argparse
from pathlib import Path

from dataproc.commands.flags import Commands
from manifest.errors import RecipeError


def add(commands: Commands[argparse.ArgumentParser]) -> None:
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


def _synth(arguments: argparse.Namespace) -> None:
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
