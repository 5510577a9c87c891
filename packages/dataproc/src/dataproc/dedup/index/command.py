"""`dataproc index`: what its commands take, and what they print."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from manifest.errors import InputError, RecipeError

if TYPE_CHECKING:  # what a command needs is imported when it runs
    import polars as pl

    from dataproc.recipe import DataRecipe
    from dataproc.workers import Workers
    from manifest.artifact import Opened

SHOWN = 3

Subparsers = argparse._SubParsersAction


class _Intermixed(argparse.ArgumentParser):
    """Takes positional arguments before, between and after options: `add INDEX --recipe R ARTIFACT…`."""

    _within = False

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        if self._within:  # which parse_known_intermixed_args calls, once for the options and once for the others
            return super().parse_known_args(args, namespace)
        self._within = True
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self._within = False


def index_parser(commands: Subparsers[argparse.ArgumentParser]) -> None:
    index = commands.add_parser(
        "index",
        help="new documents against all that were added before",
        description="An index of what exists. Documents may be added in any order of batches: their clusters, and who "
        "survives, are those of one build over all of them.",
    )
    actions = index.add_subparsers(required=True, metavar="ACTION", parser_class=_Intermixed)
    _add_parser(actions)
    _probe_parser(actions)
    _remove_parser(actions)
    _show_parser(actions)


def _add_parser(actions: Subparsers[_Intermixed]) -> None:
    add = actions.add_parser(
        "add",
        help="add documents, and say what they are near to",
        description="Adds documents as a batch, and prints its path. Its report has, for each of them that has a "
        "near-duplicate, the nearest old document, and who survives.",
        epilog="example: dataproc index add index --recipe recipes/demo/data.yaml store/documents/code-7263e6ecb1ec",
    )
    _documents_arguments(add)
    add.add_argument(
        "--workers", default="serial", help="serial, local:N, ray, ray:N or ray://host:port (default %(default)s)"
    )
    add.set_defaults(run=_add)


def _probe_parser(actions: Subparsers[_Intermixed]) -> None:
    probe = actions.add_parser(
        "probe",
        help="say what documents or texts are near to, and add nothing",
        description="Prints the report that `add` would make, a JSON object a line, or writes it to --out.",
        epilog="example: dataproc index probe index --text page.txt",
    )
    _documents_arguments(probe)
    probe.add_argument(
        "--text", nargs="+", action="extend", default=[], metavar="FILE", help="files with one text each"
    )
    probe.set_defaults(run=_probe)


def _documents_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("index", help="the directory of the index")
    parser.add_argument(
        "artifacts",
        nargs="*",
        metavar="ARTIFACT",
        help="documents, deduped or signatures artifacts, as a build publishes",
    )
    parser.add_argument(
        "--recipe", help="a data recipe; an index is made by its first one, and takes no other after it"
    )
    parser.add_argument("--raw", help="directory or URI of raw files, instead of artifacts; needs --recipe")
    parser.add_argument(
        "--source", action="append", default=[], help="with --raw: only this source of the recipe; repeatable"
    )
    parser.add_argument("--out", metavar="FILE", help="write the report here too: .jsonl or .parquet")


def _remove_parser(actions: Subparsers[_Intermixed]) -> None:
    remove = actions.add_parser(
        "remove",
        help="take documents out again, by id or by text",
        description="Records tombstones, and prints their path. A text stands for every document with "
        "J(text, document) at or above the index's threshold, also for those that are added later.",
        epilog="example: dataproc index remove index --document books/1342 --reason 'asked by the author'",
    )
    remove.add_argument("index", help="the directory of the index")
    remove.add_argument("--document", nargs="+", default=[], metavar="ID", help="ids, as in books/1342")
    remove.add_argument(
        "--text", nargs="+", action="extend", default=[], metavar="FILE", help="files with one text each"
    )
    remove.add_argument("--reason", default="", help="why; kept with the tombstones")
    remove.add_argument("--dry-run", action="store_true", help="print the report, and remove nothing")
    remove.set_defaults(run=_remove)


def _show_parser(actions: Subparsers[_Intermixed]) -> None:
    show = actions.add_parser(
        "show", help="batches, sources, clusters, survivors", description="Prints an overview of an index as JSON."
    )
    show.add_argument("index", help="the directory of the index")
    show.add_argument("--clusters", metavar="FILE", help="write every document of a cluster here: .jsonl or .parquet")
    show.set_defaults(run=_show)


def _add(arguments: argparse.Namespace) -> None:
    from dataproc.dedup.index.add import add, open_or_make
    from dataproc.dedup.index.state import exclusive, local_store
    from dataproc.dedup.index.verdicts import read_report
    from dataproc.workers import open_workers

    out = _table_file(arguments.out)
    _require_documents(arguments)
    recipe = _recipe(arguments)
    store = local_store(arguments.index)
    with exclusive(store), open_workers(arguments.workers) as workers:
        index = open_or_make(arguments.index, recipe, workers)
        batch = add(index, _inputs(arguments, recipe, str(store.root), workers), workers=workers)
    report = read_report(batch)
    if out is not None:
        _write(out, report)
    _say_demoted(report)
    print(batch.uri)


def _say_demoted(report: pl.DataFrame) -> None:
    from dataproc import progress

    demoted = [row for row in report.iter_rows(named=True) if row["status"] == "demoted"]
    if demoted:
        some = ", ".join(f"{row['id']} (now {row['survivor']})" for row in demoted[:SHOWN])
        progress.say(f"{len(demoted)} documents survive no more: {some}{' …' if len(demoted) > SHOWN else ''}")


def _probe(arguments: argparse.Namespace) -> None:
    from dataproc.dedup.index.add import probe
    from dataproc.dedup.index.questions import nearest
    from dataproc.dedup.index.state import open_index
    from dataproc.stage import Draft
    from dataproc.workers import Serial

    out = _table_file(arguments.out)
    if not arguments.text:
        _require_documents(arguments)
    elif arguments.artifacts or arguments.raw:
        raise RecipeError("give --text or documents, one of them")
    index = open_index(arguments.index)
    recipe = _recipe(arguments)
    if recipe is not None:
        index.settings.require(recipe, str(index.root))
    if arguments.text:
        _write(out, nearest(index, _texts(arguments.text)))
        return
    with TemporaryDirectory() as directory:
        inputs = _inputs(arguments, recipe, f"{directory}/store", Serial())
        draft = Draft(Path(directory, "probe"))
        report = probe(index, inputs, workers=Serial(), draft=draft)[2]
    _write(out, report)


def _remove(arguments: argparse.Namespace) -> None:
    from dataproc.dedup.index.remove import plan, remove
    from dataproc.dedup.index.state import exclusive, local_store, open_index
    from dataproc.dedup.stones import tombstone

    because = {"reason": arguments.reason}
    stones = [tombstone("--document", {"document": identifier, **because}) for identifier in arguments.document]
    stones += [tombstone(f"--text {file}", {"text": t, **because}) for file, t in _texts(arguments.text).items()]
    if not stones:
        raise RecipeError("give --document ID or --text FILE, which say what to remove")
    index = open_index(arguments.index)
    if arguments.dry_run:
        _write(None, plan(index, stones).report)
        return
    with exclusive(local_store(index.root)):
        print(remove(open_index(arguments.index), stones).uri)


def _show(arguments: argparse.Namespace) -> None:
    from dataproc import progress
    from dataproc.dedup.index.show import clusters, overview, table
    from dataproc.dedup.index.state import open_index

    file = _table_file(arguments.clusters)
    index = open_index(arguments.index)
    shown = overview(index)
    if file is not None:
        _write(file, clusters(index))
    progress.console.print(table(shown))
    print(json.dumps(shown, indent=2, ensure_ascii=False))


def _require_documents(arguments: argparse.Namespace) -> None:
    """Raises RecipeError unless there are artifacts, or raw files with the recipe that reads them."""
    if bool(arguments.artifacts) == bool(arguments.raw):
        raise RecipeError("give documents (or deduped, or signatures) artifacts, or --raw with raw files; one of them")
    if arguments.raw and not arguments.recipe:
        raise RecipeError("--raw needs --recipe, which says what the raw files hold")
    if arguments.source and not arguments.raw:
        raise RecipeError("--source goes with --raw; artifacts are of one source each")


def _recipe(arguments: argparse.Namespace) -> DataRecipe | None:
    from dataproc.recipe import read

    return read(arguments.recipe) if arguments.recipe else None


def _inputs(arguments: argparse.Namespace, recipe: DataRecipe | None, store: str, workers: Workers) -> list[Opened]:
    """The artifacts that were named; or the signatures of the raw files, published in a store as a build does."""
    from dataproc.pipeline import Pipeline
    from dataproc.stage import Build
    from manifest.artifact import Opened, open_artifact
    from manifest.fields import nearest
    from manifest.store import open_store

    if recipe is None or not arguments.raw:
        return [open_artifact(path) for path in arguments.artifacts]
    for name in arguments.source:
        if name not in recipe.sources:
            raise RecipeError(f"--source {name}: {arguments.recipe} has none{nearest(name, list(recipe.sources))}")
    wanted = {name: s for name, s in recipe.sources.items() if name in arguments.source or not arguments.source}
    of_these = recipe.model_copy(update={"sources": wanted})
    made = Pipeline(of_these, arguments.raw, Build(open_store(store), workers), "signatures").run()
    return [item for item in made if isinstance(item, Opened)]


def _texts(files: Sequence[str]) -> dict[str, str]:
    """The texts of some files, by path."""
    texts = {}
    for file in files:
        try:
            texts[file] = Path(file).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"--text {file}: cannot be read ({error}); give a file with one text in UTF-8") from error
        if not texts[file].strip():
            raise InputError(f"--text {file}: there is no text in it")
    return texts


def _table_file(path: str | None) -> Path | None:
    """Where a table goes. Raises RecipeError for another format, before any work is done."""
    if path is None:
        return None
    if Path(path).suffix not in (".jsonl", ".parquet"):
        raise RecipeError(f"{path}: a table is written as .jsonl or .parquet; name the file so")
    return Path(path)


def _write(path: Path | None, table: pl.DataFrame) -> None:
    """Rows as a file, or as JSON lines on stdout. What is empty or NaN is null there."""
    import polars.selectors as cs

    cleared = table.with_columns(cs.string().replace("", None), cs.float().fill_nan(None))
    if path is None:
        for row in cleared.iter_rows(named=True):
            print(json.dumps(row, ensure_ascii=False))
        return
    with _aside(path) as aside:
        cleared.write_parquet(aside) if path.suffix == ".parquet" else cleared.write_ndjson(aside)


@contextmanager
def _aside(path: Path) -> Iterator[Path]:
    """A file to write that takes its place when it is whole."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    yield aside
    aside.replace(path)
