"""A held-out artifact → the documents that are scored.

heldout/all: `heldout-*` (id, text, source, meta). Of each source all documents, or the `limit` with the smallest
hash of their id, so a larger limit scores the same documents and more. A document without text has no bits per byte and
is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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


def choose(heldout: Opened, limit: int | None) -> dict[str, int]:
    """The documents to score: id → bytes of UTF-8, in the artifact's order. Raises WrongArtifact if there are none."""
    sizes: dict[str, int] = {}
    by_source: dict[str, list[tuple[int, str]]] = {}
    for shard in shard_files(heldout, "heldout"):
        for batch in batches(shard, ["id", "text", "source"]):
            size = pc.binary_length(batch["text"]).to_pylist()
            for identifier, source, size_bytes in zip(
                batch["id"].to_pylist(), batch["source"].to_pylist(), size, strict=True
            ):
                if size_bytes:
                    sizes[identifier] = size_bytes
                    by_source.setdefault(source, []).append((hash64(identifier), identifier))
    chosen = {identifier for keys in by_source.values() for _, identifier in sorted(keys)[:limit]}
    if not chosen:
        raise WrongArtifact(
            f"{heldout.uri} holds no documents: the mixture's sources are too small for its hold-out; raise "
            "`holdout.fraction` (or `max_share`) in the data recipe, build the mixture again and train on it"
        )
    return {identifier: size for identifier, size in sizes.items() if identifier in chosen}


def pieces(chosen: Mapping[str, int], piece_bytes: int) -> list[int]:
    """How many documents each piece of the work has: as many as it takes to reach `piece_bytes`."""
    counts, size = [0], 0
    for size_bytes in chosen.values():
        if size >= piece_bytes:
            counts.append(0)
            size = 0
        counts[-1] += 1
        size += size_bytes
    return counts


def documents(heldout: Opened, chosen: Mapping[str, int]) -> Iterator[Document]:
    """The chosen documents, in the artifact's order."""
    for shard in shard_files(heldout, "heldout"):
        for batch in batches(shard, ["id", "source", "text"]):
            for row in batch.to_pylist():
                if row["id"] in chosen:
                    yield Document(row["id"], row["source"], row["text"])
