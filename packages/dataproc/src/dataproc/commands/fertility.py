"""dataproc fertility: how many tokens tokenizers make of text."""

from __future__ import annotations

import argparse

from dataproc import progress
from dataproc.commands.flags import Commands, result_directory
from manifest.errors import RecipeError


def add(commands: Commands[argparse.ArgumentParser]) -> None:
    fertility = commands.add_parser(
        "fertility",
        help="tokens per word and bytes per token of tokenizers, source by source",
        description="Encodes a sample of each source with each tokenizer, and writes fertility.json, fertility.md and "
        "fertility.png; prints the path of the first. A word is what stands between white space.",
        epilog="example: dataproc fertility store/mixtures/bilingual-9f2c --curve --out fertility",
    )
    fertility.add_argument(
        "tokenizers", metavar="TOKENIZER", nargs="+", help="a tokenizer's directory or tokenizer.json, or a mixture"
    )
    fertility.add_argument(
        "--on",
        metavar="DOCUMENTS",
        nargs="+",
        help="an artifact of documents, a mixture, or raw files: a directory or a file per source; default: the "
        "documents that the tokenizers were built with",
    )
    fertility.add_argument("--text", metavar="FIELD", default="text", help="where raw records have their text")
    fertility.add_argument(
        "--curve",
        metavar="COUNTS",
        nargs="?",
        const="",
        help="of extended tokenizers, also their first so many new tokens, such as 0,1k,2k (default: none, then in "
        "doubling steps up to all)",
    )
    fertility.add_argument(
        "--sample-bytes", metavar="BYTES", default="16M", help="text per source (default %(default)s)"
    )
    fertility.add_argument("--out", default="fertility", help="directory for the results (default %(default)s)")
    fertility.add_argument("--json", action="store_true", help="print the numbers instead of the path; still write all")
    fertility.set_defaults(run=_fertility)


def _fertility(arguments: argparse.Namespace) -> None:
    from dataproc.dedup.pages import publish
    from dataproc.vocab import fertility, fertility_page
    from dataproc.vocab.texts import made_from, texts_by_source

    out = result_directory(arguments.out)
    curve = fertility.parse_curve(arguments.curve)
    given = fertility.subjects(arguments.tokenizers)
    texts = texts_by_source(arguments.on or made_from(arguments.tokenizers), arguments.text, _bytes(arguments))
    found = fertility.measure(given, texts, curve)
    progress.console.print(fertility_page.table(found))
    path = publish(out, "fertility", found, fertility_page.page(found), fertility_page.picture(found))
    print(found.model_dump_json() if arguments.json else path)


def _bytes(arguments: argparse.Namespace) -> int:
    from manifest.fields import parse_count

    try:
        count = parse_count(arguments.sample_bytes)
    except ValueError as error:
        raise RecipeError(f"--sample-bytes: {error}") from error
    if not isinstance(count, int) or count < 1:
        raise RecipeError(f"--sample-bytes {arguments.sample_bytes}: expected at least 1")
    return count
