"""The rows of new tokens, made once before a run begins, so that all workers read the same ones.

base, growth, settings ─► rows/<base>-<fingerprint>: found, or made in the run's store
    rows.safetensors    embedding.weight (N, C), and unembedding.weight (N, C) where the head is not tied
    vocabulary.json     of each row: its id and token, the pieces that stood for it, how it began
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from manifest.artifact import Opened, open_artifact, relative_uri, resolve, verify
from manifest.errors import InputError, NotAnArtifact, WrongArtifact
from manifest.export import listed
from manifest.identity import short
from manifest.mixture import Mixture
from manifest.record import Artifact, Model, Producer, Reference, digest_of_shards, fingerprint, now
from manifest.store import LocalStore
from trainer.adapt import cooccurrence
from trainer.adapt.base import Base
from trainer.adapt.settings import VocabularyRecipe
from trainer.adapt.tokens import Growth, read_vocabulary
from trainer.model import grow
from trainer.model.mup import Role, init_std
from trainer.model.shape import Shape

KIND = "rows"
STAGE = "rows/1"
LIBRARIES = ("numpy", "tokenizers", "torch")
ROWS, VOCABULARY = "rows.safetensors", "vocabulary.json"


class BegunRow(Model):
    """A new row. token: its text, for people. pieces: the base's ids that stood for it. start: how it began."""

    id: int
    token: str
    pieces: tuple[int, ...]
    start: str


class GrownVocabulary(Model):
    """vocabulary.json. base_size: one more than the largest id of the base's tokenizer. replaced: those of the ids that
    other tokens had before.
    """

    version: int = 1
    base_size: int
    rows: tuple[BegunRow, ...]
    replaced: tuple[int, ...] = ()

    @property
    def texts(self) -> dict[int, str]:
        """The new tokens by id."""
        return {row.id: row.token for row in self.rows}


@dataclass(frozen=True)
class Asked:
    """What new rows are made of. shape: of the decoder that has them. other: the donor, or the auxiliary model."""

    settings: VocabularyRecipe
    base: Base
    growth: Growth
    mixture: Opened
    shape: Shape
    seed: int
    other: Base | None


def make_rows(store: LocalStore, asked: Asked) -> Opened:
    """The rows that a run begins with: those of the store, whose files are checked, or new ones.

    Raises InputError if the other model has too few tokens in common with the base.
    """
    inputs = _inputs(asked, at="")
    config = asked.settings.identified() | {"shape": asked.shape.model_dump(mode="json")}
    if asked.settings.new_rows == "random":
        config["seed"] = asked.seed
    libraries = {name: version(name) for name in LIBRARIES}
    wanted = fingerprint(STAGE, config=config, inputs=inputs, libraries=libraries)
    path = f"{KIND}/{asked.base.name.replace('/', '-')}-{short(wanted)}"
    if store.manifest(path) is not None:
        verify(store.where(path))
        return open_artifact(store.where(path), kind=KIND)
    with store.draft(path) as draft:
        if store.manifest(path) is None:
            summary = _write(asked, draft)
            shards = tuple(listed(draft, name, len(asked.growth.rows)) for name in (ROWS, VOCABULARY))
            record = Artifact(
                kind=KIND,
                name=asked.base.name,
                stage=STAGE,
                fingerprint=wanted,
                config=config,
                inputs=_inputs(asked, at=store.where(path)),
                shards=shards,
                digest=digest_of_shards(shards),
                summary=summary,
                producer=Producer(program="trainer fit", version=version("winnow-trainer"), libraries=libraries),
                created=now(),
            )
            store.publish(path, draft, record)
    return open_artifact(store.where(path), kind=KIND)


def _inputs(asked: Asked, *, at: str) -> dict[str, Reference]:
    """What the rows are made of, as the artifact at `at` refers to it; without one, uris do not matter."""
    mixture = asked.mixture.manifest
    assert isinstance(mixture, Mixture)
    where = resolve(asked.mixture.uri, mixture.tokenizer.uri)
    tokenizer = Reference(kind="tokenizers", name="tokenizer", id=open_artifact(where).manifest.id, uri=where)
    found = {"base": asked.base.reference(at or asked.base.where), "tokenizer": tokenizer}
    if asked.settings.reads_mixture:
        found["mixture"] = Reference(kind="mixture", name=mixture.name, id=mixture.id, uri=asked.mixture.uri)
    for name in ("tokenizer", "mixture") if at else ():
        if name in found:
            found[name] = found[name].model_copy(update={"uri": relative_uri(found[name].uri, at)})
    if asked.other is not None:
        found["other"] = asked.other.reference(at or asked.other.where)
    return found


def _write(asked: Asked, draft: Path) -> dict[str, Any]:
    """Writes the files; returns the summary."""
    growth, names = asked.growth, _tables(asked.shape)
    read = asked.base.reader()
    tables = {name: read(name) for name in names}
    with torch.no_grad():
        made = _begin(asked, tables)
    save_file({name: rows.contiguous() for name, rows in made.tables.items()}, draft / ROWS, metadata={"format": "pt"})
    (draft / ROWS).chmod((draft.stat().st_mode & 0o666) | 0o600)  # safetensors writes for the owner only
    begun = GrownVocabulary(
        base_size=max(growth.base.ids.values()) + 1,
        rows=tuple(
            BegunRow(id=row.id, token=growth.grown.text(row.id, row.token), pieces=row.pieces, start=start)
            for row, start in zip(growth.rows, made.starts, strict=True)
        ),
        replaced=tuple(sorted(growth.replaced)),
    )
    (draft / VOCABULARY).write_text(begun.model_dump_json(indent=1) + "\n", encoding="utf-8")
    counts = {start: made.starts.count(start) for start in dict.fromkeys(made.starts)}
    return {"rows": len(growth.rows), "replaced": len(growth.replaced), "starts": counts, **made.facts}


def _tables(shape: Shape) -> tuple[str, ...]:
    return ("embedding.weight",) if shape.architecture.tied else ("embedding.weight", "unembedding.weight")


@dataclass(frozen=True)
class _Begun:
    """The rows of each table, how each of them began, and what the summary says besides."""

    tables: dict[str, Tensor]
    starts: list[str]
    facts: dict[str, Any]


def _begin(asked: Asked, tables: dict[str, Tensor]) -> _Begun:
    rows, kept, start = asked.growth.rows, asked.growth.kept, asked.settings.new_rows
    if start == "random":
        std = init_std(asked.shape, Role.EMBEDDING)
        sizes = {name: (len(rows), table.shape[1]) for name, table in tables.items()}
        made = {name: grow.random(*size, std=std, seed=asked.seed, name=name) for name, size in sizes.items()}
        return _Begun(made, [start] * len(rows), {})
    means = {name: grow.mean_of_all(table, kept) for name, table in tables.items()}
    if start == "mean_of_all":
        return _Begun({n: mean.repeat(len(rows), 1) for n, mean in means.items()}, [start] * len(rows), {})
    pieces = [row.pieces for row in rows]
    made = {name: grow.mean_of_pieces(table, pieces, means[name]) for name, table in tables.items()}
    starts = ["mean_of_pieces" if row.pieces else "mean_of_all" for row in rows]
    if start == "mean_of_pieces":
        return _Begun(made, starts, {})
    return (_by_similarity if start == "similarity" else _by_projection)(asked, tables, _Begun(made, starts, {}))


def _by_similarity(asked: Asked, tables: dict[str, Tensor], rest: _Begun) -> _Begun:
    """As `rest`, but for tokens that have a vector."""
    old, new, vectors = _auxiliary(asked)
    if not old or not new:
        raise InputError(
            f"vocabulary.auxiliary: it has vectors for {len(old):,} of the base's tokens and {len(new):,} of the new "
            "ones, and needs both; take another model, or another start (new_rows)"
        )
    places = [place for place, _ in new]
    neighbours = grow.nearest(
        vectors[[n for _, n in new]], vectors[[n for _, n in old]], [n for n, _ in old], asked.settings.neighbours
    )
    for name, table in tables.items():
        rest.tables[name][places] = grow.weighted(table, neighbours)
    return _renamed(rest, places, "similarity", {"compared": len(old)})


Pairs = list[tuple[int, int]]
"""Which row of ours has which row of the vectors."""


def _auxiliary(asked: Asked) -> tuple[Pairs, Pairs, Tensor]:
    """Old ids and places of new rows, each with its row of the vectors."""
    if asked.other is not None:
        old, new = _in_common(asked.growth, asked.other)
        return old, new, asked.other.reader()("embedding.weight")
    vectors = torch.from_numpy(cooccurrence.vectors(asked.mixture))
    seen = vectors.abs().sum(1) > 0
    old = [(number, number) for number in asked.growth.kept if number < len(seen) and seen[number]]
    new = [(place, row.id) for place, row in enumerate(asked.growth.rows) if seen[row.id]]
    return old, new, vectors


def _by_projection(asked: Asked, tables: dict[str, Tensor], rest: _Begun) -> _Begun:
    """As `rest`, but for tokens that the donor has."""
    assert asked.other is not None
    old, new = _in_common(asked.growth, asked.other)
    if len(old) < asked.other.shape.width or not new:
        raise InputError(
            f"vocabulary.donor: {asked.other.uri} has {len(old):,} tokens in common with the base and "
            f"{len(new):,} of the {len(asked.growth.rows):,} new ones; a map of its {asked.other.shape.width:,} "
            "dimensions needs at least as many, and one. Take another donor, or another start (new_rows)"
        )
    read, their_tables = asked.other.reader(), _tables(asked.other.shape)
    ours, theirs = [n for n, _ in old], [n for _, n in old]
    places, fresh = [place for place, _ in new], [n for _, n in new]
    explained = {}
    for name, table in tables.items():
        table_theirs = read(name if name in their_tables else "embedding.weight")  # a tied donor has one for both
        fitted = grow.fit_projection(table_theirs[theirs], table[ours])
        rest.tables[name][places] = grow.projected(table_theirs[fresh], fitted)
        explained[name] = round(fitted.explained, 6)
    return _renamed(rest, places, "projection", {"shared": len(old), "explained": explained})


def _in_common(growth: Growth, other: Base) -> tuple[Pairs, Pairs]:
    """Old ids, and places of new rows, whose tokens stand for the same bytes as one of the other model's."""
    vocabulary = read_vocabulary(other.tokenizer())
    theirs: dict[bytes, int] = {}
    for number, data in sorted(vocabulary.bytes_of.items()):
        if number < other.shape.vocab_size:
            theirs.setdefault(data, number)
    own, grown = growth.base.bytes_of, growth.grown.bytes_of
    old = [(n, theirs[own[n]]) for n in growth.kept if n in own and own[n] in theirs]
    new = [(place, grown[row.id]) for place, row in enumerate(growth.rows) if row.id in grown]
    return old, [(place, theirs[data]) for place, data in new if data in theirs]


def _renamed(rest: _Begun, places: Sequence[int], start: str, facts: dict[str, Any]) -> _Begun:
    starts = list(rest.starts)
    for place in places:
        starts[place] = start
    return _Begun(rest.tables, starts, facts)


def open_rows(at: str, reference: Reference) -> tuple[GrownVocabulary, dict[str, Tensor]]:
    """The rows that the run at `at` begins with. Raises ArtifactError if they are gone, or others now."""
    opened = _opened(at, reference)
    verify(opened.uri)
    return read_grown(opened), load_file(opened.directory / ROWS)


def open_grown(at: str, reference: Reference) -> GrownVocabulary:
    """The tokens of those rows. Raises as `open_rows` does."""
    return read_grown(_opened(at, reference))


def _opened(at: str, reference: Reference) -> Opened:
    uri = resolve(at, reference.uri)
    try:
        opened = open_artifact(uri, kind=KIND)
    except NotAnArtifact as error:
        raise NotAnArtifact(f"{uri}: the rows of the new tokens of {at} are gone; restore them") from error
    if opened.manifest.id != reference.id:
        raise WrongArtifact(f"{uri} is {short(opened.manifest.id)} now; {at} has {short(reference.id)}. Restore it")
    return opened


def read_grown(opened: Opened) -> GrownVocabulary:
    return GrownVocabulary.model_validate_json((opened.directory / VOCABULARY).read_text(encoding="utf-8"))


def summary_line(opened: Opened) -> str:
    """What was made, for people."""
    record = opened.manifest
    assert isinstance(record, Artifact)
    starts = ", ".join(f"{count:,} by {start}" for start, count in record.summary["starts"].items())
    explained = record.summary.get("explained")
    fit = (
        ""
        if explained is None
        else "; the projection explains "
        + ", ".join(
            f"{share:.1%} of {table.removesuffix('.weight')}".replace("%", " %") for table, share in explained.items()
        )
        + f" where {record.summary['shared']:,} tokens are shared"
    )
    replaced = f", {record.summary['replaced']:,} in place of others" if record.summary["replaced"] else ""
    return f"{record.summary['rows']:,} new rows{replaced} ({starts}){fit}"
