"""Token streams → a mixture: which phase draws how many whole blocks from which view.

A phase is stated as weights × tokens, as epochs, or as tokens per view; all become integer draws. Weights are shares of
tokens, never of documents.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

from dataproc import progress
from dataproc.recipe import DataRecipe
from dataproc.recipe.phases import PhaseRecipe
from manifest.artifact import Opened, relative_uri
from manifest.errors import RecipeError
from manifest.indexed import token_dtype
from manifest.mixture import Mixture, Phase, Stream, Tokenizer, TokenShard, View
from manifest.record import Artifact, FileEntry, Reference, Shard


def draws(name: str, phase: PhaseRecipe, blocks: Mapping[str, int], block_tokens: int) -> dict[str, int]:
    """The blocks that a phase draws from each view. blocks: of each view's stream, one epoch.

    Raises RecipeError if a view that must be drawn from has no tokens, or if nothing is drawn.
    """
    for view in sorted(phase.names):
        if view not in blocks:
            raise RecipeError(
                f"phase {name!r} draws from {view!r}, but nothing of that source is left to train on after dedup and "
                "hold-out; give it more text, or take it out of the phase"
            )
    found: dict[str, int] = {}
    if phase.weights:
        assert isinstance(phase.tokens, int)
        found |= apportion(phase.weights, max(1, round(Fraction(phase.tokens, block_tokens))))
        for view in (view for view, weight in phase.weights.items() if weight > 0 and found[view] == 0):
            progress.say(f"phase {name!r}: {view!r} is not drawn; its weight is less than a block of {block_tokens}")
    found |= {view: _at_least_one(Fraction(epochs) * blocks[view], epochs) for view, epochs in phase.epochs.items()}
    if isinstance(phase.tokens, dict):
        found |= {view: _at_least_one(Fraction(tokens, block_tokens), tokens) for view, tokens in phase.tokens.items()}
    if sum(found.values()) == 0:
        raise RecipeError(f"phase {name!r} draws no block of {block_tokens} tokens; give it more tokens or epochs")
    return found


def _at_least_one(blocks: Fraction, asked: float) -> int:
    return max(1, round(blocks)) if asked > 0 else 0


def apportion(weights: Mapping[str, float], total: int) -> dict[str, int]:
    """`total` blocks by weight: whole parts first, the rest to the largest remainders (Hamilton's method)."""
    whole = sum(Fraction(weight) for weight in weights.values())
    exact = {name: Fraction(weight) / whole * total for name, weight in weights.items()}
    parts = {name: int(share) for name, share in exact.items()}
    by_remainder = sorted(exact, key=lambda name: (parts[name] - exact[name], name))
    for name in by_remainder[: total - sum(parts.values())]:
        parts[name] += 1
    return parts


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
    return TokenShard(
        bin=_entry(bin_file),
        idx=_entry(idx),
        ids=_entry(ids),
        tokens=bin_file.bytes // token_bytes,
        documents=bin_file.rows,
    )


def _entry(shard: Shard) -> FileEntry:
    return FileEntry(path=shard.path, bytes=shard.bytes, sha256=shard.sha256)


def mixture(
    recipe: DataRecipe,
    *,
    tokens: Mapping[str, Opened],
    tokenizer: Opened,
    heldout: Opened | None,
    base: str,
    summary: dict[str, object],
) -> Mixture:
    """The mixture manifest (without producer and time). base: the URI at which it will be published."""
    made = tokenizer.manifest
    assert isinstance(made, Artifact)
    token_bytes = token_dtype(made.summary["vocab_size"]).itemsize
    streams = {name: stream_of(opened, base, recipe.block_tokens, token_bytes) for name, opened in tokens.items()}
    blocks = {name: stream.blocks for name, stream in streams.items()}
    phases = tuple(
        Phase(name=name, seed=recipe.seed, draw=draws(name, phase, blocks, recipe.block_tokens))
        for name, phase in recipe.phases.items()
    )
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
        ),
        block_tokens=recipe.block_tokens,
        streams=streams,
        views={name: View(of=name, stream=name) for name in streams},
        phases=phases,
        heldout=inputs.get("heldout"),
        inputs=inputs,
        config=recipe.model_dump(mode="json"),
        summary={**summary, "phases": _epochs(phases, streams)},
    )


def _epochs(phases: tuple[Phase, ...], streams: Mapping[str, Stream]) -> dict[str, dict[str, float]]:
    return {p.name: {v: round(n / streams[v].blocks, 4) for v, n in p.draw.items()} for p in phases}


def _reference(opened: Opened, base: str) -> Reference:
    manifest = opened.manifest
    return Reference(kind=manifest.kind, name=manifest.name, id=manifest.id, uri=relative_uri(opened.uri, base))
