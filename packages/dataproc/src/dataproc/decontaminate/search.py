"""Documents and evaluation items → which document holds which item, from where to where.

in:  documents/<source>…, evaluation files
out: contamination/all
     spans-*   one row per document, item and run of grams that follow one another:
               id, source, shard, row (of the source's documents), evaluation, file, line, item (its id, or empty),
               start, end (characters of the document's text), item_start, item_end (of the item's), grams
     items-*   every item: evaluation, file, line, item, words, matched (n-grams, whole, skipped), text

All documents are looked at, whatever dedup and hold-out make of them later: so recipes that differ in these share it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dataproc.decontaminate.index import LEAST, MATCHED, Words, load_search, matched, save_index, words_of
from dataproc.decontaminate.items import Item, items_of
from dataproc.dedup.places import Sources, numbered
from dataproc.documents import ShardWriter, batches
from dataproc.raw import RawFile
from dataproc.recipe.decontaminate import Decontaminate, Evaluation
from dataproc.repair import repair
from dataproc.stage import Draft, Made
from dataproc.workers import Workers
from manifest.errors import DataError
from manifest.record import Model, Shard

STAGE = "contamination/1"
SPANS = pa.schema(
    [
        *(("id", pa.string()), ("source", pa.string()), ("shard", pa.int32()), ("row", pa.int64())),
        *(("evaluation", pa.string()), ("file", pa.string()), ("line", pa.int64()), ("item", pa.string())),
        *(("start", pa.int64()), ("end", pa.int64()), ("item_start", pa.int64()), ("item_end", pa.int64())),
        ("grams", pa.int64()),
    ]
)
ITEMS = pa.schema(
    [
        *(("evaluation", pa.string()), ("file", pa.string()), ("line", pa.int64()), ("item", pa.string())),
        *(("words", pa.int64()), ("matched", pa.string()), ("text", pa.large_string())),
    ]
)


NAMES = ITEMS.names[:4]
NAMED = "items.parquet"
"""Beside the index: what items are called."""


class Found(Model):
    """What a task found in a shard: documents, by evaluation set too, and the numbers of the items."""

    shards: tuple[Shard, ...]
    spans: int
    documents: int
    by_evaluation: dict[str, int]
    items: tuple[int, ...]


Evaluations = Mapping[str, Sequence[RawFile]]
"""The files of each evaluation set."""


def read_items(recipe: Decontaminate, files: Evaluations, *, ftfy: bool) -> pa.Table:
    """All items (ITEMS), their texts repaired as those of documents are if `ftfy`.

    Raises DataError for a record that cannot be used, and for a set of which no item is long enough to be looked for.
    """
    found = list(chain.from_iterable(items_of(name, one, files[name]) for name, one in recipe.against.items()))
    texts = pa.array([item.text for item in found], pa.large_string())
    texts = repair(texts) if ftfy else texts
    words = words_of(texts)
    kinds = matched(words, recipe.ngram)
    for name, evaluation in recipe.against.items():
        _check_length(name, evaluation, found, words, kinds, recipe.ngram)
    columns = [*map(pa.array, zip(*(item[:4] for item in found), strict=True))]
    said = pa.array([MATCHED[kind] for kind in kinds])
    return pa.table([*columns, pa.array(np.diff(words.bounds)), said, texts], names=ITEMS.names).cast(ITEMS)


def _check_length(
    name: str, evaluation: Evaluation, found: Sequence[Item], words: Words, kinds: NDArray[np.int64], ngram: int
) -> None:
    ours = np.array([item.evaluation == name for item in found], np.bool_)
    if not (ours & (kinds < MATCHED.index("skipped"))).any():
        longest = int(np.diff(words.bounds)[ours].max(initial=0))
        raise DataError(
            f"evaluation set {name!r}: none of its {ours.sum():,} items is long enough to be looked for: "
            f"{min(LEAST, ngram)} words are needed, and the longest has {longest} in {', '.join(evaluation.fields)}. "
            "Name more of its fields in the recipe's decontaminate.against, or leave the set out"
        )


def contamination(items: pa.Table, sources: Sources, *, ngram: int, workers: Workers, draft: Draft) -> Made:
    """The stage. items: as `read_items` has them."""
    listed = ShardWriter(draft.path, "items", ITEMS)
    for batch in items.to_batches(max_chunksize=2048):
        listed.write(batch)
    directory = draft.scratch / "index"
    save_index(directory, words_of(items["text"].combine_chunks()), ngram)
    located = [(name, shard) for name, shards in sources for shard in range(len(shards))]
    pq.write_table(items.select(NAMES), directory / NAMED)
    done = workers.map(
        partial(_search, index=directory, draft=draft.path),
        [(n, *place, path) for n, (place, path) in enumerate(zip(located, numbered(sources), strict=True))],
        result=Found,
        notes=draft.notes / "searched",
        label="contamination",
    )
    shards = (*listed.close(), *(shard for found in done for shard in found.shards))
    by_source = {name: [f for (of, _), f in zip(located, done, strict=True) if of == name] for name, _ in sources}
    return Made(shards, _summary(items, by_source))


def _summary(items: pa.Table, by_source: Mapping[str, Sequence[Found]]) -> dict[str, Any]:
    everything = [found for shards in by_source.values() for found in shards]
    evaluation, kinds = np.array(items["evaluation"].to_pylist()), np.array(items["matched"].to_pylist())
    touched = {name: _numbers(shards) for name, shards in by_source.items()}
    sets = {}
    for name in dict.fromkeys(evaluation.tolist()):
        of_source = {
            source: {
                "documents": sum(found.by_evaluation.get(name, 0) for found in shards),
                "items": int((evaluation[touched[source]] == name).sum()),
            }
            for source, shards in by_source.items()
        }
        counts = {kind: int(((evaluation == name) & (kinds == kind)).sum()) for kind in MATCHED}
        sets[name] = {
            "items": sum(counts.values()),
            "whole": counts["whole"],
            "skipped": counts["skipped"],
            "found": int((evaluation[_numbers(everything)] == name).sum()),
            "documents": sum(counts_["documents"] for counts_ in of_source.values()),
            "sources": of_source,
        }
    return {
        "documents": sum(found.documents for found in everything),
        "items": len(_numbers(everything)),
        "spans": sum(found.spans for found in everything),
        "by_source": {source: sum(f.documents for f in shards) for source, shards in by_source.items()},
        "evaluations": sets,
    }


def _numbers(found: Sequence[Found]) -> NDArray[np.int64]:
    """The items of some shards, each once."""
    return np.unique(np.concatenate([np.zeros(0, np.int64), *(np.array(f.items, np.int64) for f in found)]))


@lru_cache(maxsize=1)
def _names(index: Path) -> pa.Table:
    return pq.read_table(index / NAMED)


def _search(place: tuple[int, str, int, Path], *, index: Path, draft: Path) -> Found:
    """One task: a shard of documents, its number among all, its source and its number there."""
    number, _, shard, path = place
    search, names = load_search(index), _names(index)
    writer = ShardWriter(draft, f"spans-{number:05d}", SPANS)
    evaluations = np.array(names["evaluation"].to_pylist())
    items: set[int] = set()
    before = documents = spans = 0
    by_evaluation: dict[str, int] = {}
    for batch in batches(path, ["id", "text", "source"]):
        rows_S7 = search.spans(batch["text"])
        if len(rows_S7):
            writer.write(_rows(batch, rows_S7, names, shard, before))
            documents += len(np.unique(rows_S7[:, 0]))
            spans += len(rows_S7)
            items.update(rows_S7[:, 1].tolist())
            pairs = {(row, str(evaluations[item])) for row, item in rows_S7[:, :2].tolist()}
            for _, name in pairs:
                by_evaluation[name] = by_evaluation.get(name, 0) + 1
        before += batch.num_rows
    return Found(
        shards=writer.close(),
        spans=spans,
        documents=documents,
        by_evaluation=dict(sorted(by_evaluation.items())),
        items=tuple(sorted(items)),
    )


def _rows(batch: pa.RecordBatch, rows_S7: NDArray[np.int64], names: pa.Table, shard: int, before: int) -> pa.Table:
    """Spans of a batch as SPANS. before: how many rows of the shard came before it."""
    row, item, *numbers = (np.ascontiguousarray(column) for column in rows_S7.T)
    of_document = batch.select(["id", "source"]).take(pa.array(row))
    of_item = names.take(pa.array(item))
    columns = [
        *of_document.columns,
        pa.array(np.full(len(row), shard, np.int32)),
        pa.array(before + row),
        *(column.combine_chunks() for column in of_item.columns),
        *map(pa.array, numbers),
    ]
    return pa.table(columns, schema=SPANS)
