"""dataproc build: a recipe and raw files → a mixture, or what comes before it."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from dataproc import progress
from dataproc.commands.flags import Commands, add_workers, memory_of
from manifest.artifact import Opened
from manifest.errors import RecipeError

if TYPE_CHECKING:  # what a command needs is imported when it runs
    from dataproc.estimate import Estimates
    from dataproc.recipe import DataRecipe


def add(commands: Commands[argparse.ArgumentParser]) -> None:
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
    add_workers(build)
    build.add_argument("--until", metavar="STAGE", default="mixtures", help="stop after a stage: documents … mixtures")
    build.add_argument(
        "--override",
        metavar="GATE=REASON",
        action="append",
        default=[],
        help="let a gate of the recipe pass, for a reason that is written into the mixture; may be repeated",
    )
    build.add_argument(
        "--without",
        action="append",
        default=[],
        metavar="TOMBSTONES",
        help="leave out what these name: a JSONL file of {document: id} and {text: text}, or what `index remove` "
        "printed; may be repeated",
    )
    build.add_argument(
        "--base", metavar="TOKENIZER", help="the tokenizer that the recipe extends, or a mixture that has it"
    )
    build.add_argument("--dry-run", action="store_true", help="say what would be built and re-used; build nothing")
    build.set_defaults(run=_build)


def _build(arguments: argparse.Namespace) -> None:
    from dataproc.dedup import removal, stones
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
    recipe = read(arguments.recipe, override=dict(_reasons(arguments.override)), base=arguments.base)
    store = open_store(arguments.out)
    left_out = stones.Stones.of([stone for path in arguments.without for stone in stones.read(path)])
    if arguments.dry_run:
        found = estimate(recipe, arguments.raw)
        for line in (*lines(found), *_cost(found, recipe, arguments)):
            progress.say(line)
        Pipeline(recipe, arguments.raw, Build(store, Serial(), dry=True), arguments.until, left_out).run()
        if left_out:
            progress.say(removal.consequences(trains_tokenizer=recipe.tokenizer.train is not None))
        progress.say("dry run: nothing was built")
        return
    with open_workers(arguments.workers, memory_of(arguments)) as workers:
        published = Pipeline(recipe, arguments.raw, Build(store, workers), arguments.until, left_out).run()
    for item in published:
        assert isinstance(item, Opened)
        show(item)
        print(item.uri)


def _cost(found: Estimates, recipe: DataRecipe, arguments: argparse.Namespace) -> Iterator[str]:
    """What the build will take, timed on the texts of the estimate."""
    from dataproc import cost
    from dataproc.workers import count_of

    texts = [text for source in found.sources.values() for text in source.texts]
    if texts:
        rates = cost.measure(texts, recipe)
        memory = memory_of(arguments)
        yield from cost.lines(
            cost.predict(found.sources, recipe, rates, memory_bytes=memory), count_of(arguments.workers)
        )


def _reasons(overrides: Sequence[str]) -> Iterator[tuple[str, str]]:
    for override in overrides:
        gate, equals, reason = override.partition("=")
        if not equals or not reason.strip():
            raise RecipeError(f"--override {override}: expected GATE=REASON, such as max_cluster='copies of a licence'")
        yield gate, reason
