"""Documents → a new batch of an index, with a report of what they are near to.

Batches may come in any order and size: an edge is a property of its two texts, so the clusters are those of one build
over everything (no bucket being over the cap). Only what arrives is read whole; of the index a few rows are.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from dataproc import progress
from dataproc.dedup.index.arrivals import Arrivals, arriving_shards, documents_and_signatures, look_up
from dataproc.dedup.index.batch import write_batch
from dataproc.dedup.index.search import Links, search
from dataproc.dedup.index.settings import Settings
from dataproc.dedup.index.state import BATCHES, KIND, Index, local_store, open_index
from dataproc.dedup.index.verdicts import counts_of, report_of
from dataproc.recipe import DataRecipe
from dataproc.stage import Build, Draft, Input, Made, Request
from dataproc.workers import Workers
from manifest.artifact import Opened, open_artifact
from manifest.errors import RecipeError

STAGE = "index/1"
BATCH_STAGE = "index-batch/1"


def open_or_make(root: str | Path, recipe: DataRecipe | None, workers: Workers) -> Index:
    """The index at a path, made by the recipe if there is none. Raises RecipeError if it takes another recipe."""
    store = local_store(root)
    if not store.list(KIND):
        if recipe is None:
            raise RecipeError(
                f"{store.uri} holds no index yet; give --recipe, which says when documents are near-duplicates"
            )
        settings = Settings.of(recipe)
        request = Request(KIND, settings.name, STAGE, settings.model_dump(mode="json"), {})
        Build(store, workers).make(request, lambda _: Made((), {}))
    index = open_index(root)
    if recipe is not None:
        index.settings.require(recipe, str(index.root))
    return index


def add(index: Index, inputs: Sequence[Opened], *, workers: Workers) -> Opened:
    """Publishes what arrives as the next batch; under the index's lock (state.exclusive).

    The same artifacts again are the batch that they are already. Raises DataError for ids that have another text.
    """
    documents = sorted(documents_and_signatures(item, index)[0].manifest.id for item in inputs)
    present = _batch_of(index, documents)
    if present is not None:
        progress.say(f"these artifacts were added already, as {present.uri}")
        return present

    def make(draft: Draft) -> Made:
        arrivals, links, report = probe(index, inputs, workers=workers, draft=draft)
        shards, numbers = write_batch(index, arrivals, links.edges, report, workers=workers, draft=draft)
        counts = {"documents": numbers.documents, **counts_of(report), "texts": numbers.texts}
        left_out = {"ignored": arrivals.ignored, "tombstoned": arrivals.tombstoned}
        others = {"capped_buckets": links.capped_buckets, "sources": _by_source(arrivals)}
        return Made(shards, {**counts, **left_out, **others, "numbers": numbers.model_dump(mode="json")})

    keyed: dict[str, Input] = {f"added/{number:04d}": item for number, item in enumerate(inputs)}
    previous = open_artifact(index.entries[-1])
    request = Request(
        BATCHES, f"{len(index.entries):06d}", BATCH_STAGE, {"documents": documents}, {"previous": previous, **keyed}
    )
    made = Build(local_store(index.root), workers).make(request, make)
    assert isinstance(made, Opened)
    return made


def probe(
    index: Index, inputs: Sequence[Opened], *, workers: Workers, draft: Draft
) -> tuple[Arrivals, Links, pl.DataFrame]:
    """What adding these artifacts would find, with the report."""
    pairs = arriving_shards(inputs, index, workers=workers, draft=draft)
    arrivals = look_up(pairs, index, workers=workers, draft=draft)
    links = search(index, arrivals, workers=workers, draft=draft)
    return arrivals, links, report_of(index, arrivals, links)


def _batch_of(index: Index, documents: list[str]) -> Opened | None:
    """The batch in which just the artifacts of these ids were added."""
    batches = (open_artifact(batch.directory) for batch in index.batches)
    return next((batch for batch in batches if batch.manifest.config["documents"] == documents), None)


def _by_source(arrivals: Arrivals) -> dict[str, Any]:
    counts = {pair.source: 0 for pair in arrivals.pairs}
    for pair in arrivals.pairs:
        counts[pair.source] += int(arrivals.kept[pair.first : pair.first + pair.rows].sum())
    return counts
