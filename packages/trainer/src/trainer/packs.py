"""Packs of a run: the streams of its `best_fit` phases, laid out in windows before it begins.

    mixture, recipe ──► which stream in which window ──► packs/<stream>-<fingerprint>: found, or made in the run's store
    n of a stream's N blocks ──► round(n · N′ / N) of its pack's N′, so that a phase reads as many epochs

What a pack is stands in manifest/pack.py.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from importlib.metadata import version

from manifest.artifact import Opened, locate, open_artifact, open_streams, read_manifest, relative_uri, resolve, verify
from manifest.corpus import TokenStream
from manifest.identity import short
from manifest.mixture import Mixture
from manifest.pack import (
    KIND,
    STAGE,
    PackSummary,
    capacity_of,
    open_referred_pack,
    pack,
    pack_fingerprint,
    pack_record,
    summary_of,
    tokens_id,
    write_pack,
)
from manifest.progress import Progress, report
from manifest.record import Producer, Reference, now
from manifest.store import LocalStore, open_store
from trainer.recipe import PhaseRecipe, TrainRecipe

Key = tuple[str, int]
"""The id of a stream's tokens, and seq_len."""

Packs = Mapping[Key, Opened]

Say = Callable[[str], None]
"""Tells the user a line."""


def packing_version(recipe: TrainRecipe) -> str | None:
    """What makes the packs of a recipe, if it has any: another version gives a run other windows."""
    return STAGE if any(phase.packing == "best_fit" for phase in recipe.phases.values()) else None


def wanted(mixture: Mixture, recipe: TrainRecipe) -> dict[Key, str]:
    """The packs that the phases need, each with the name of its stream."""
    found: dict[Key, str] = {}
    for name, phase in recipe.phases.items():
        if phase.packing == "best_fit":
            for view, blocks in mixture.phase(name).draw.items():
                stream = mixture.views[view].stream
                if blocks:
                    found[mixture.streams[stream].id, phase.seq_len] = stream
    return found


def make_packs(
    store: LocalStore, mixture: Opened, recipe: TrainRecipe, say: Say, *, known: Packs | None = None
) -> dict[Key, Opened]:
    """The packs that a run needs: those that are known, those of the store, whose files are checked, and new ones.

    Raises ArtifactError if a stream or a pack is not what its manifest says.
    """
    manifest = _mixture(mixture)
    needed = wanted(manifest, recipe)
    streams: dict[str, TokenStream] = {}
    found = {key: opened for key, opened in (known or {}).items() if key in needed}
    for done, ((tokens, seq_len), name) in enumerate(needed.items()):
        if (tokens, seq_len) in found:
            continue
        report(Progress(stage="pack", done=done, total=len(needed), unit="streams"))
        reference = _tokens(mixture, name)
        path = _path(reference, seq_len)
        if store.manifest(path) is not None:
            verify(store.where(path))
        else:
            streams = streams or open_streams(mixture)
            say(_packing(manifest, name, seq_len, path))
            _make(store, path, reference, streams[name], seq_len)
        found[tokens, seq_len] = open_artifact(store.where(path), kind=KIND)
    if needed:
        report(Progress(stage="pack", done=len(needed), total=len(needed), unit="streams"))
    return found


def remake_packs(
    store: LocalStore,
    base: str,
    referred: Sequence[Reference],
    mixtures: Iterable[Opened],
    recipe: TrainRecipe,
    say: Say,
) -> None:
    """Makes anew those packs of the run at `base` that are gone, of the streams of the mixtures that it reads.

    Raises ArtifactError if a mixture or a stream is not what it was.
    """
    gone = {uri for reference in referred if not _is_there(uri := resolve(base, reference.uri))}
    for mixture in mixtures if gone else ():
        manifest = _mixture(mixture)
        for (_, seq_len), name in wanted(manifest, recipe).items():
            reference = _tokens(mixture, name)
            path = _path(reference, seq_len)
            if store.where(path) in gone:
                say(_packing(manifest, name, seq_len, path))
                _make(store, path, reference, open_streams(mixture)[name], seq_len)


def _is_there(uri: str) -> bool:
    place, name = locate(uri)
    return place.said_id(name) is not None


def _packing(mixture: Mixture, stream: str, seq_len: int, path: str) -> str:
    documents = mixture.streams[stream].documents
    return f"packing {documents:,} documents of {stream} into windows of {seq_len:,} tokens → {path}"


def find_packs(mixture: Opened, recipe: TrainRecipe) -> dict[Key, Opened]:
    """Those of the packs that are in the mixture's own store: <store>/mixtures/<name>, <store>/packs/<pack>."""
    needed = wanted(_mixture(mixture), recipe)
    place = locate(mixture.uri)[0].uri
    if not needed or posixpath.basename(place) != "mixtures":
        return {}
    store = open_store(resolve(place, ".."))
    paths = {key: _path(_tokens(mixture, name), key[1]) for key, name in needed.items()}
    there = {key: path for key, path in paths.items() if store.manifest(path) is not None}
    return {key: open_artifact(store.where(path), kind=KIND) for key, path in there.items()}


def _make(store: LocalStore, path: str, tokens: Reference, stream: TokenStream, seq_len: int) -> None:
    with store.draft(path) as draft:
        if store.manifest(path) is not None:  # another process has made it while this one waited
            return
        made, summary = pack(stream, seq_len)
        relative = tokens.model_copy(update={"uri": relative_uri(tokens.uri, store.where(path))})
        record = pack_record(relative, seq_len, write_pack(made, draft), summary)
        producer = Producer(program="trainer fit", version=version("winnow-trainer"))
        store.publish(path, draft, record.model_copy(update={"producer": producer, "created": now()}))


def draws_of(
    mixture: Mixture, phase: PhaseRecipe, draws: Mapping[str, int], packs: Packs
) -> tuple[dict[str, int], dict[str, tuple[str, int]]]:
    """A phase's draws, and for each view what it reads and how many blocks that has: its stream or its pack.

    draws: blocks of streams. A pack that is not among `packs` counts as one without padding.
    """
    taken: dict[str, int] = {}
    read: dict[str, tuple[str, int]] = {}
    for view, n in draws.items():
        stream = mixture.streams[mixture.views[view].stream]
        taken[view], read[view] = n, (stream.id, stream.blocks)
        opened = packs.get((stream.id, phase.seq_len)) if phase.packing == "best_fit" else None
        if opened is not None:
            blocks = -(-summary_of(opened).bins * phase.seq_len // mixture.block_tokens)
            read[view] = opened.manifest.id, blocks
            taken[view] = max(1, round(Fraction(n * blocks, stream.blocks))) if n else 0
    return taken, read


def pack_remarks(mixture: Mixture, recipe: TrainRecipe, packs: Packs) -> Iterator[str]:
    """What packing does to each stream of a phase, or that it is still to be done."""
    for name, phase in recipe.phases.items():
        for tokens, stream in _of_phase(mixture, name, phase):
            opened = packs.get((tokens, phase.seq_len))
            if opened is None:
                yield (
                    f"phase {name!r}: `trainer fit` first packs {stream} into windows of {phase.seq_len:,}; its steps "
                    "and tokens are given without padding"
                )
            else:
                yield f"phase {name!r}: {_described(stream, phase.seq_len, summary_of(opened))}"


def _of_phase(mixture: Mixture, name: str, phase: PhaseRecipe) -> list[tuple[str, str]]:
    """The tokens id and the name of each stream that a phase packs."""
    if phase.packing != "best_fit":
        return []
    drawn = {mixture.views[view].stream for view, blocks in mixture.phase(name).draw.items() if blocks}
    return [(mixture.streams[stream].id, stream) for stream in sorted(drawn)]


def _described(stream: str, seq_len: int, summary: PackSummary) -> str:
    """A pack in words."""
    cut = ""
    if summary.cut_documents:
        cut = (
            f"; {summary.cut_documents:,} of {summary.documents:,} documents are longer than a window and cut into "
            f"{summary.cut_pieces:,} pieces"
        )
    share = f"{summary.padding_share:.2%}".replace("%", " %")
    return f"{stream} fills {summary.bins:,} windows of {seq_len:,} tokens, {share} of them padding{cut}"


def open_packs(base: str, referred: Sequence[Reference]) -> tuple[Opened, ...]:
    """The packs that the artifact, or the run, at `base` refers to. Raises ArtifactError if one is gone or another."""
    return tuple(open_referred_pack(base, reference) for reference in referred)


def by_key(packs: Sequence[Opened]) -> dict[Key, Opened]:
    """Packs by what they lay out."""
    return {(tokens_id(opened), capacity_of(opened)): opened for opened in packs}


def references(packs: Sequence[Opened], base: str) -> tuple[Reference, ...]:
    """Packs, as the artifact at `base` refers to them."""
    return tuple(
        Reference(kind=KIND, name=p.manifest.name, id=p.manifest.id, uri=relative_uri(p.uri, base)) for p in packs
    )


def _tokens(mixture: Opened, stream: str) -> Reference:
    """A stream's tokens, by their own name: mixtures that call them otherwise share their packs."""
    entry = _mixture(mixture).streams[stream]
    uri, tokens = read_manifest(resolve(mixture.uri, entry.uri))
    return Reference(kind=tokens.kind, name=tokens.name, id=entry.id, uri=uri)


def _path(tokens: Reference, seq_len: int) -> str:
    return f"{KIND}/{tokens.name}-{short(pack_fingerprint(tokens, seq_len))}"


def _mixture(opened: Opened) -> Mixture:
    assert isinstance(opened.manifest, Mixture)
    return opened.manifest
