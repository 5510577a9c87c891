"""The pack of a stream: which pieces of its documents lie in which bin, as an artifact of kind `packs`.

    packs/<stream>-<fingerprint>/offsets.npy   i64 (bins + 1,)  bin b holds the pieces offsets[b] to offsets[b + 1]
                                 start.npy     i64 (pieces,)    first token of each piece in the stream
                                 length.npy    i32 (pieces,)    its tokens, 1 to capacity
                                 order.npy     i64 (pieces,)    the pieces in order of their start

It is a pure function of the tokens and the capacity of a bin, which its fingerprint holds with the version of the
packing. The files are little-endian and memory-mapped; nothing is read before it is asked for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from manifest.artifact import Opened, open_artifact, resolve
from manifest.bestfit import Bins, Ints, best_fit
from manifest.corpus import TokenStream
from manifest.errors import CorruptArtifact, NotAnArtifact, WrongArtifact
from manifest.identity import short
from manifest.record import Artifact, Reference, Shard, digest_of_shards, fingerprint

KIND = "packs"
STAGE = "pack/1"
"""Changes when the bins of the same tokens do."""

DTYPES: Mapping[str, str] = {"offsets": "<i8", "start": "<i8", "length": "<i4", "order": "<i8"}


@dataclass(frozen=True)
class Pack:
    """The bins of a stream, as in the files."""

    offsets: Ints
    start: Ints
    length: npt.NDArray[np.int32]
    order: Ints
    capacity: int


@dataclass(frozen=True)
class PackSummary:
    """What is counted of a pack. padding: places that hold no token. cut_documents are in cut_pieces pieces."""

    bins: int
    pieces: int
    tokens: int
    documents: int
    padding: int
    cut_documents: int
    cut_pieces: int

    @property
    def padding_share(self) -> float:
        """Of all places."""
        return self.padding / (self.padding + self.tokens)


def document_starts(stream: TokenStream) -> Ints:
    """First token of each document in stream order, and the number of tokens. Shape (documents + 1,)."""
    parts = [
        base + np.asarray(shard.pointers, np.int64) // shard.tokens.itemsize
        for shard, base in zip(stream.shards, stream.starts, strict=False)
    ]
    return np.concatenate([*parts, np.array([stream.tokens], np.int64)])


def pack(stream: TokenStream, capacity: int) -> tuple[Pack, PackSummary]:
    """The best-fit bins of the documents of a stream, and what is counted of them.

    Bins lie in order of their first piece in the stream, which is their longest. So, as in the stream, neighbours are
    random; in the order in which they were opened, the windows of a block would hold documents of one length.
    """
    starts = document_starts(stream)
    bins = best_fit(np.diff(starts), capacity)
    start = starts[bins.document] + bins.start
    by_place = np.argsort(start[bins.offsets[:-1]])
    pieces = np.diff(bins.offsets)[by_place]
    offsets = np.concatenate([[0], np.cumsum(pieces)])
    moved = np.repeat(bins.offsets[by_place] - offsets[:-1], pieces) + np.arange(len(start))
    start, length = start[moved], bins.length[moved].astype(np.int32)
    return Pack(offsets, start, length, np.argsort(start), capacity), _summary(bins, len(starts) - 1)


def _summary(bins: Bins, documents: int) -> PackSummary:
    pieces = np.bincount(bins.document)
    return PackSummary(
        bins=len(bins.offsets) - 1,
        pieces=len(bins.document),
        tokens=int(bins.length.sum()),
        documents=documents,
        padding=bins.padding,
        cut_documents=int((pieces > 1).sum()),
        cut_pieces=int(pieces[pieces > 1].sum()),
    )


def pack_fingerprint(tokens: Reference, capacity: int) -> str:
    """What is asked of a pack."""
    return fingerprint(STAGE, config={"capacity": capacity}, inputs={"tokens": tokens}, libraries={})


def pack_record(tokens: Reference, capacity: int, shards: tuple[Shard, ...], summary: PackSummary) -> Artifact:
    """The manifest of a pack. tokens: as the pack refers to them."""
    return Artifact(
        kind=KIND,
        name=tokens.name,
        stage=STAGE,
        fingerprint=pack_fingerprint(tokens, capacity),
        config={"capacity": capacity},
        inputs={"tokens": tokens},
        shards=shards,
        digest=digest_of_shards(shards),
        summary=dict(vars(summary)),
    )


def write_pack(found: Pack, directory: Path) -> tuple[Shard, ...]:
    """Writes the files of a pack."""
    return tuple(_write(getattr(found, name), directory / f"{name}.npy", dtype) for name, dtype in DTYPES.items())


def _write(values: npt.NDArray[np.integer[Any]], file: Path, dtype: str) -> Shard:
    """One array. Its digest is over the values alone: the header is NumPy's."""
    values = np.ascontiguousarray(values, dtype)
    np.save(file, values, allow_pickle=False)
    with file.open("rb") as saved:
        sha256 = hashlib.file_digest(saved, "sha256").hexdigest()
    digest = hashlib.sha256(values.data).hexdigest()
    return Shard(path=file.name, bytes=file.stat().st_size, sha256=sha256, rows=len(values), digest=digest)


def summary_of(opened: Opened) -> PackSummary:
    """What is counted of an opened pack."""
    return PackSummary(**_artifact(opened).summary)


def tokens_id(opened: Opened) -> str:
    """The id of the tokens that an opened pack lays out."""
    return _artifact(opened).inputs["tokens"].id


def capacity_of(opened: Opened) -> int:
    """How many tokens a bin of an opened pack holds."""
    capacity: int = _artifact(opened).config["capacity"]
    return capacity


def open_pack(opened: Opened, stream: TokenStream) -> Pack:
    """Maps the files of a pack. stream: of the tokens that it lays out.

    Raises CorruptArtifact if they are not what the manifest says, WrongArtifact for other tokens.
    """
    summary = summary_of(opened)
    if summary.tokens != stream.tokens:
        raise WrongArtifact(
            f"{opened.uri} lays out {summary.tokens:,} tokens of {short(tokens_id(opened))}; the stream has "
            f"{stream.tokens:,}. Restore the stream, or delete the pack and train again"
        )
    sizes = {"offsets": summary.bins + 1, "start": summary.pieces, "length": summary.pieces, "order": summary.pieces}
    arrays = {name: _map(opened, name, size) for name, size in sizes.items()}
    return Pack(**arrays, capacity=capacity_of(opened))


def open_referred_pack(base: str, reference: Reference) -> Opened:
    """The pack that the artifact at `base` refers to. Raises ArtifactError if it is gone or another."""
    uri = resolve(base, reference.uri)
    try:
        opened = open_artifact(uri, kind=KIND)
    except NotAnArtifact as error:
        raise NotAnArtifact(
            f"{uri} is gone: the pack of {reference.name} that the run reads. Restore it, or run the same "
            "`trainer fit` again: it makes it anew"
        ) from error
    if opened.manifest.id != reference.id:
        raise WrongArtifact(
            f"{uri} has id {short(opened.manifest.id)}; the run reads the pack {short(reference.id)}. Restore it, or "
            "delete it and run the same `trainer fit` again: it makes it anew"
        )
    return opened


def _map(opened: Opened, name: str, size: int) -> npt.NDArray[Any]:
    file = opened.directory / f"{name}.npy"
    try:
        values = np.asarray(np.load(file, mmap_mode="r", allow_pickle=False))
    except (ValueError, EOFError, OSError) as error:
        raise CorruptArtifact(
            f"{file} cannot be read ({error}); delete {opened.uri} and run the same command again"
        ) from error
    if values.shape != (size,) or values.dtype != np.dtype(DTYPES[name]):
        raise CorruptArtifact(
            f"{file} holds {values.dtype} {values.shape}; the manifest says {DTYPES[name]} ({size},). Delete "
            f"{opened.uri} and run the same command again"
        )
    return values


def _artifact(opened: Opened) -> Artifact:
    assert isinstance(opened.manifest, Artifact)
    assert opened.manifest.kind == KIND
    return opened.manifest
