"""Which documents of a source a stream takes: by metadata, by half, or by a range of the id hash."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa

from dataproc.documents import batches
from dataproc.recipe.views import Part, Slice
from manifest.identity import hash64

SHOWN = 8


def chosen(batch: pa.RecordBatch, stream: Slice) -> pa.RecordBatch:
    """The rows of a batch (id; meta, where the stream goes by it) that a stream takes."""
    if stream.part is not None:
        keys = np.array([hash64(i) for i in batch["id"].to_pylist()], np.uint64)
        batch = batch.filter(pa.array(_in_part(keys, stream.part)))
    if stream.where:
        batch = batch.filter(pa.array([matches(meta, stream) for meta in batch["meta"].to_pylist()], pa.bool_()))
    return batch


def _in_part(keys: npt.NDArray[np.uint64], part: Part) -> npt.NDArray[np.bool_]:
    """Halves go by the lowest bit of the id hash, ranges by its highest 53, as a share of 1."""
    if isinstance(part, str):
        odd: npt.NDArray[np.bool_] = (keys & np.uint64(1)).astype(bool)
        return odd if part == "odd" else ~odd
    share = (keys >> np.uint64(11)).astype(np.float64) / 2**53
    return (share >= part[0]) & (share < part[1])


def matches(meta: str, stream: Slice) -> bool:
    """Whether every field of `where` has one of its values; a field that is a list, if one of its members has."""
    fields = orjson.loads(meta)
    return all(
        any(_same(found, want) for found in _stated(fields, field) for want in wanted)
        for field, wanted in stream.where.items()
    )


def _same(found: Any, wanted: Any) -> bool:
    return type(found) is type(wanted) and found == wanted


def _stated(fields: Any, field: str) -> Sequence[Any]:
    """What a field of the record holds. A `meta` that was its only other field is stored without that level."""
    return _values(fields, field) or _values(fields, field.removeprefix("meta."))


def _values(fields: Any, field: str) -> Sequence[Any]:
    """What a field holds, itself or through the mappings that its dots go into; nothing if it is not there."""
    if field in fields:
        found = fields[field]
    else:
        first, dot, rest = field.partition(".")
        inner = fields.get(first)
        return _values(inner, rest) if dot and isinstance(inner, dict) else ()
    return found if isinstance(found, list) else (found,)


def nothing_chosen(stream: Slice, shards: Sequence[Path]) -> str:
    """What to say of a stream that takes no document: what the first documents have instead."""
    asked = [f"{field} in {list(wanted)}" for field, wanted in stream.where.items()]
    asked += [f"part {stream.part}"] if stream.part is not None else []
    seen = {field: Counter[str]() for field in stream.where}
    batch = next(iter(batches(shards[0], ["meta"])), None)
    for meta in batch["meta"].to_pylist() if batch is not None else ():
        for field, counts in seen.items():
            counts.update(repr(value) for value in _stated(orjson.loads(meta), field))
    found = [
        f"the first documents have {field} {', '.join(value for value, _ in counts.most_common(SHOWN)) or 'nowhere'}"
        for field, counts in seen.items()
    ]
    return (
        f"no document of source {stream.source!r} has {' and '.join(asked)}; {'; '.join(found) or 'give it more text'}"
    )
