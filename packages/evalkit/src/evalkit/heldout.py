"""A held-out artifact → the documents that are scored.

heldout/<recipe>: `heldout-*` (id, text, source, meta). Of each source all documents, or the `limit` with the smallest
hash of their id, so a larger limit scores the same documents and more. A document without text has no bits per byte and
is left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow.compute as pc
from dataproc.documents import batches
from dataproc.stage import shard_files
from manifest.artifact import Opened
from manifest.errors import WrongArtifact
from manifest.identity import hash64


@dataclass(frozen=True)
class Document:
    """A held-out document."""

    id: str
    source: str
    text: str


def choose(heldout: Opened, limit: int | None) -> frozenset[str]:
    """The ids of the documents to score. Raises WrongArtifact if there are none."""
    by_source: dict[str, list[tuple[int, str]]] = {}
    for shard in shard_files(heldout, "heldout"):
        for batch in batches(shard, ["id", "text", "source"]):
            for row in batch.filter(pc.greater(pc.binary_length(batch["text"]), 0)).select(["id", "source"]).to_pylist():
                by_source.setdefault(row["source"], []).append((hash64(row["id"]), row["id"]))
    chosen = frozenset(identifier for keys in by_source.values() for _, identifier in sorted(keys)[:limit])
    if not chosen:
        raise WrongArtifact(
            f"{heldout.uri} holds no documents: the mixture's sources are too small for its hold-out; raise "
            "`holdout.fraction` (or `max_share`) in the data recipe, build the mixture again and train on it"
        )
    return chosen


def documents(heldout: Opened, chosen: frozenset[str]) -> Iterator[Document]:
    """The chosen documents, in the artifact's order."""
    for shard in shard_files(heldout, "heldout"):
        for batch in batches(shard, ["id", "source", "text"]):
            for row in batch.to_pylist():
                if row["id"] in chosen:
                    yield Document(row["id"], row["source"], row["text"])
