"""Evaluation items in documents, and what leaves training for their sake."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from dataproc import progress
from dataproc.decontaminate import leaving
from dataproc.pipeline.context import Artifacts, Context, Item, shards_of
from dataproc.raw import RawFile
from dataproc.stage import Draft, Input, Made, Raw, Request

ALL = "all"
"""The name of what is of all sources; recipes that differ in what comes after it share one."""


def items(context: Context, evaluations: Mapping[str, Sequence[RawFile]]) -> pa.Table | None:
    """The items of the recipe, if it has any. Raises DataError, long before they are looked for."""
    recipe = context.recipe.decontaminate
    if recipe is None or not evaluations:
        return None
    from dataproc.decontaminate import search  # its kernels take half a second to load

    found = search.read_items(recipe, evaluations, ftfy=context.recipe.clean.ftfy)
    for name, files in evaluations.items():
        kinds = found.filter(pc.field("evaluation") == name)["matched"].to_pylist()
        progress.say(
            f"evaluation set {name}: {len(kinds):,} items in {len(files):,} files; {kinds.count('whole'):,} have "
            f"less than {recipe.ngram} words and are looked for whole, {kinds.count('skipped'):,} are too short"
        )
    return found


def contamination(
    context: Context, found: pa.Table | None, evaluations: Mapping[str, Sequence[RawFile]], documents: Artifacts
) -> Item | None:
    """Which documents hold which items; None if nobody asks."""
    recipe = context.recipe.decontaminate
    if recipe is None or found is None:
        return None
    from dataproc.decontaminate import search

    def make(draft: Draft) -> Made:
        sources = [(name, shards_of(item, "documents")) for name, item in documents.items()]
        return search.contamination(found, sources, ngram=recipe.ngram, workers=context.build.workers, draft=draft)

    inputs: dict[str, Input] = {f"documents/{name}": item for name, item in documents.items()}
    inputs |= {f"{name}/{f.path}": Raw(f.path, f.sha256, f.uri) for name, files in evaluations.items() for f in files}
    config = {
        "ngram": recipe.ngram,
        "against": {name: one.model_dump(mode="json", exclude={"files"}) for name, one in recipe.against.items()},
        "ftfy": context.recipe.clean.ftfy,
        "sources": list(documents),
        "unicode": unicodedata.unidata_version,
    }
    return context.build.make(Request("contamination", ALL, search.STAGE, config, inputs, ("ftfy", "orjson")), make)


def contaminated(context: Context, found: Item | None, ledgers: Artifacts) -> Item | None:
    """What leaves training; None if the recipe removes nothing."""
    recipe = context.recipe.decontaminate
    if recipe is None or found is None or recipe.action != "remove":
        return None
    names = list(context.recipe.sources)

    def make(draft: Draft) -> Made:
        removed = [shard for item in ledgers.values() for shard in shards_of(item, "ledger")]
        return leaving.leaving(shards_of(found, "spans"), removed, names, workers=context.build.workers, draft=draft)

    inputs: dict[str, Input] = {"contamination": found, **{f"ledger/{g}": item for g, item in ledgers.items()}}
    return context.build.make(Request("contaminated", ALL, leaving.STAGE, {"sources": names}, inputs), make)
