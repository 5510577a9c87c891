"""Token streams → a mixture: which phase draws how many whole blocks from which view of which stream."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dataproc.gates import Gatekeeper
from dataproc.recipe import DataRecipe
from dataproc.shares import draws
from manifest.artifact import Opened, relative_uri
from manifest.indexed import token_dtype
from manifest.mixture import Mixture, Phase, Stream, Tokenizer, TokenShard, View
from manifest.record import Artifact, FileEntry, Reference, Shard


def stream_of(tokens: Opened, base: str, block_tokens: int, token_bytes: int) -> Stream:
    """A tokens artifact, `token_bytes` bytes a token, as a stream of the mixture at `base`."""
    manifest = tokens.manifest
    assert isinstance(manifest, Artifact)
    files = {shard.path: shard for shard in manifest.shards}
    stems = sorted(path.removesuffix(".bin") for path in files if path.endswith(".bin"))
    count = int(manifest.summary["tokens"])
    return Stream(
        uri=relative_uri(tokens.uri, base),
        id=manifest.id,
        tokens=count,
        documents=int(manifest.summary["documents"]),
        blocks=-(-count // block_tokens),
        shards=tuple(_shard(files, stem, token_bytes) for stem in stems),
    )


def _shard(files: Mapping[str, Shard], stem: str, token_bytes: int) -> TokenShard:
    bin_file, idx, ids = (files[stem + suffix] for suffix in (".bin", ".idx", ".ids"))
    mask = files.get(stem + ".mask")
    return TokenShard(
        bin=_entry(bin_file),
        idx=_entry(idx),
        ids=_entry(ids),
        mask=None if mask is None else _entry(mask),
        tokens=bin_file.bytes // token_bytes,
        documents=bin_file.rows,
    )


def _entry(shard: Shard) -> FileEntry:
    return FileEntry(path=shard.path, bytes=shard.bytes, sha256=shard.sha256)


def mixture(
    recipe: DataRecipe,
    gates: Gatekeeper,
    *,
    tokens: Mapping[str, Opened],
    tokenizer: Opened,
    heldout: Opened | None,
    base: str,
    summary: dict[str, object],
) -> Mixture:
    """The mixture manifest (without producer and time). tokens: by stream. base: the URI at which it will be published.

    Raises RecipeError as `draws` does, DataError if a stream is read more often than `max_epochs`.
    """
    made = tokenizer.manifest
    assert isinstance(made, Artifact)
    token_bytes = token_dtype(made.summary["vocab_size"]).itemsize
    streams = {name: stream_of(opened, base, recipe.block_tokens, token_bytes) for name, opened in tokens.items()}
    views = {name: _view(recipe, name) for name in recipe.drawn() if recipe.stream_of(name) in streams}
    blocks = {name: streams[view.stream].blocks for name, view in views.items()}
    phases = tuple(
        Phase(name=name, seed=recipe.seed, draw=draws(name, phase, blocks, recipe.block_tokens, tuple(recipe.sources)))
        for name, phase in recipe.phases.items()
    )
    epochs = _epochs(phases, views, streams)
    gates.check_epochs(epochs["epochs"], recipe.max_epochs)
    overridden = {"overridden": gates.overridden} if gates.overridden else {}
    inputs = {f"tokens/{name}": _reference(opened, base) for name, opened in tokens.items()}
    inputs["tokenizer"] = _reference(tokenizer, base)
    if heldout is not None:
        inputs["heldout"] = _reference(heldout, base)
    return Mixture(
        name=recipe.name,
        tokenizer=Tokenizer(
            uri=relative_uri(tokenizer.uri, base),
            digest=made.digest,
            vocab_size=made.summary["vocab_size"],
            end_of_text=made.summary["end_of_text"],
            fim=made.summary.get("fim"),
        ),
        block_tokens=recipe.block_tokens,
        streams=streams,
        views=views,
        phases=phases,
        heldout=inputs.get("heldout"),
        inputs=inputs,
        config=recipe.model_dump(mode="json"),
        summary={**summary, **epochs, **overridden},
    )


def _view(recipe: DataRecipe, name: str) -> View:
    asked = recipe.view(name)
    return View(stream=recipe.stream_of(name), **asked.model_dump())


def _epochs(
    phases: tuple[Phase, ...], views: Mapping[str, View], streams: Mapping[str, Stream]
) -> dict[str, dict[str, Any]]:
    """How often a stream is read: by each phase through each view, and over all phases."""
    blocks = {name: streams[view.stream].blocks for name, view in views.items()}
    by_phase = {p.name: {view: round(n / blocks[view], 4) for view, n in p.draw.items()} for p in phases}
    drawn = dict.fromkeys(streams, 0)
    for phase in phases:
        for view, count in phase.draw.items():
            drawn[views[view].stream] += count
    return {"phases": by_phase, "epochs": {name: round(n / streams[name].blocks, 4) for name, n in drawn.items()}}


def _reference(opened: Opened, base: str) -> Reference:
    manifest = opened.manifest
    return Reference(kind=manifest.kind, name=manifest.name, id=manifest.id, uri=relative_uri(opened.uri, base))
