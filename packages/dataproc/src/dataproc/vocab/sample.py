"""The documents that a tokenizer learns from: chosen by a hash of their ids, so that it does not depend on files or
workers.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from dataproc.documents import batches
from manifest.identity import hash64


def limit_of(sample_bytes: int, text_bytes: int) -> int:
    """The hash below which a document is in a sample of about `sample_bytes` of all `text_bytes`."""
    return int(min(1.0, sample_bytes / max(text_bytes, 1)) * 2**64)


def sampled(shard: Path, limit: int) -> Iterator[pa.RecordBatch]:
    """The texts of a shard that are in the sample: batches of the column `text`."""
    for batch in batches(shard, ["id", "text"]):
        chosen = pa.array([hash64(f"tokenizer/{i}") < limit for i in batch["id"].to_pylist()], pa.bool_())
        yield batch.filter(chosen).select(["text"])
