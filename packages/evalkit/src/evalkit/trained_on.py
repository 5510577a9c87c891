"""Which documents a model may have been trained on: those in the streams of a mixture that it comes from.

    checkpoint ──lineage──► mixtures of its run, and of the runs that it started from ──► streams ──► ids

A mixture never trains on what it holds out itself. What another holds out it may hold: that of a later phase, of the
data that a model was adapted to, of the one that `--heldout` names. Documents are known by their ids, so the same text
under the name of another source is not found.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from manifest.artifact import Opened, open_artifact, open_streams
from manifest.corpus import TokenStream
from manifest.lineage import lineage, nodes
from manifest.mixture import Mixture


@dataclass(frozen=True)
class TrainedOn:
    """ids: documents, of those asked for, that a mixture holds to be read. lost: mixtures that are gone or changed."""

    ids: frozenset[str]
    lost: tuple[str, ...]


def trained_on(checkpoint: Opened, ids: Collection[str]) -> TrainedOn:
    """Asks every mixture behind a checkpoint for documents. That a stream has one does not say that a step read it."""
    mixtures = [node for node in nodes(lineage(checkpoint.uri)) if node.kind == "mixture"]
    streams: dict[str, TokenStream] = {}
    for node in mixtures:
        if node.state == "ok":
            streams |= _streams(open_artifact(node.uri, kind="mixture"))
    held = {i for i in ids if any(stream.find(i) is not None for stream in streams.values())}
    return TrainedOn(frozenset(held), tuple(sorted({node.name for node in mixtures if node.state != "ok"})))


def _streams(mixture: Opened) -> dict[str, TokenStream]:
    """By the id of their tokens, for a mixture and the one that follows it share most."""
    record = mixture.manifest
    assert isinstance(record, Mixture)
    return {record.streams[name].id: stream for name, stream in open_streams(mixture).items()}
