"""A mixture → the documents behind its tokens as a Hugging Face dataset, with a card.

in:  mixtures/<name>, tokens/<stream> (their ids), deduped/<source>, heldout/<name>
out: data/<stream>/train-00000-of-000NN.parquet    id, text, source, meta, and what other columns there are
     heldout/<source>/heldout-00000-of-000NN.parquet
     README.md, recipe.yaml

A stream's documents are those whose ids its tokens list, in the order of the deduplicated shards.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml

from dataproc.export import inputs
from dataproc.export.card import card
from dataproc.export.contents import Contents
from dataproc.export.directory import export_to, write_text
from dataproc.export.parts import Part, Written, schema_of, write_part
from dataproc.stage import Draft, Made, Request, shard_files
from dataproc.workers import Workers
from manifest.artifact import Opened
from manifest.errors import CorruptArtifact
from manifest.mixture import Mixture
from manifest.record import Artifact, Shard

STAGE = "export-parquet/1"
FILE_BYTES = 256_000_000
DATA, HELDOUT = "data", "heldout"


@dataclass(frozen=True)
class Asked:
    """A mixture, the files that its export will have, and their columns."""

    opened: Opened
    mixture: Mixture
    parts: tuple[Part, ...]
    schema: pa.Schema
    documents: Mapping[str, int]
    """How many documents the files of each folder hold together, as the mixture says."""


def ask(uri: str) -> Asked:
    """What an export of the mixture at `uri` takes. Raises ArtifactError for what is no mixture or not whole."""
    opened, mixture = inputs.open_mixture(uri)
    parts: list[Part] = []
    shards: list[Path] = []
    for name, tokens in inputs.stream_tokens(opened).items():
        behind = inputs.documents_behind(tokens)
        parts += _stream_parts(name, mixture, tokens, behind)
        shards += [path for item in behind for path in shard_files(item, "documents")[:1]]
    held = inputs.heldout_of(opened)
    if held is not None:
        parts += _heldout_parts(held)
        shards += shard_files(held, HELDOUT)[:1]
    documents = {f"{DATA}/{name}": stream.documents for name, stream in mixture.streams.items()}
    documents |= {f"{HELDOUT}/{name}": count for name, count in _heldout_counts(held).items()}
    return Asked(opened, mixture, tuple(parts), schema_of(shards), documents)


def _heldout_counts(held: Opened | None) -> dict[str, int]:
    """The held-out documents of each source that has some."""
    if held is None:
        return {}
    assert isinstance(held.manifest, Artifact)
    counts = {name: int(of["heldout"]) for name, of in held.manifest.summary["sources"].items()}
    return {name: count for name, count in counts.items() if count}


def _heldout_parts(held: Opened) -> Iterator[Part]:
    files = tuple(shard_files(held, HELDOUT))
    return (Part(f"{HELDOUT}/{name}", HELDOUT, files, source=name) for name in _heldout_counts(held))


def _stream_parts(name: str, mixture: Mixture, tokens: Opened, behind: Sequence[Opened]) -> Iterator[Part]:
    """The files of a stream: of a source that it has whole, or of those documents that its tokens list."""
    stream = mixture.streams[name]
    there = sum(shard.rows for item in behind for shard in _documents(item))
    stems = tuple((tokens.directory / shard.bin.path).with_suffix("") for shard in stream.shards)
    listed = () if there == stream.documents else stems
    limit = FILE_BYTES * there / stream.documents
    waiting: list[Path] = []
    size = 0
    for item in behind:
        for shard in _documents(item):
            if waiting and size + shard.bytes > limit:
                yield Part(f"{DATA}/{name}", "train", tuple(waiting), listed)
                waiting, size = [], 0
            waiting.append(item.directory / shard.path)
            size += shard.bytes
    if waiting:
        yield Part(f"{DATA}/{name}", "train", tuple(waiting), listed)


def _documents(item: Opened) -> list[Shard]:
    assert isinstance(item.manifest, Artifact)
    return sorted((s for s in item.manifest.shards if s.path.startswith("documents")), key=lambda s: s.path)


def export(asked: Asked, out: Path, *, workers: Workers) -> Opened:
    """The export. Raises InputError for an `out` that is in use, CorruptArtifact for damaged documents."""
    request = Request("export", asked.mixture.name, STAGE, {}, {"mixture": asked.opened}, ("pyarrow",))
    return export_to(out, request, partial(_make, asked, workers))


def _make(asked: Asked, workers: Workers, draft: Draft) -> Made:
    written = workers.map(
        partial(write_part, schema=asked.schema, directory=draft.scratch),
        list(enumerate(asked.parts)),
        result=Written,
        notes=draft.notes,
        label="documents",
    )
    _require_all(asked, written)
    contents = Contents(asked.mixture, asked.schema, tuple(_placed(asked.parts, written, draft)))
    recipe = yaml.safe_dump(_without_none(asked.mixture.config), sort_keys=False, allow_unicode=True)
    command = f"dataproc export {Path(asked.opened.uri).name} --format parquet"
    texts = {"README.md": card(contents, command), "recipe.yaml": recipe}
    files = [file for _, one in contents.files if (file := one.file) is not None]
    files += [write_text(draft.path, name, text) for name, text in texts.items()]
    rows = {"documents": contents.all.rows("train"), "heldout": contents.all.rows(HELDOUT)}
    return Made(tuple(files), {**rows, "licences": contents.all.licences})


def _require_all(asked: Asked, written: Sequence[Written]) -> None:
    """Raises CorruptArtifact unless every document that the mixture speaks of was found."""
    found = dict.fromkeys(asked.documents, 0)
    for part, one in zip(asked.parts, written, strict=True):
        found[part.folder] += one.rows
    for folder, expected in asked.documents.items():
        if found[folder] != expected:
            raise CorruptArtifact(
                f"{asked.opened.uri}: {found[folder]:,} documents were found for {folder}, but it was made with "
                f"{expected:,}; run the same dataproc build again over the raw files, and export what it prints"
            )


def _placed(parts: Sequence[Part], written: Sequence[Written], draft: Draft) -> Iterator[tuple[Part, Written]]:
    """Every file under the name that it will have. A killed attempt may have moved some already."""
    of_split: dict[tuple[str, str], list[int]] = {}
    for number, (part, one) in enumerate(zip(parts, written, strict=True)):
        if one.file is not None:
            of_split.setdefault((part.folder, part.split), []).append(number)
    for (folder, split), numbers in of_split.items():
        (draft.path / folder).mkdir(parents=True, exist_ok=True)
        for place, number in enumerate(numbers):
            file = written[number].file
            assert file is not None
            name = f"{folder}/{split}-{place:05d}-of-{len(numbers):05d}.parquet"
            aside = draft.scratch / file.path
            if aside.exists():
                aside.replace(draft.path / name)
            moved = file.model_copy(update={"path": name})
            yield parts[number], written[number].model_copy(update={"file": moved})


def _without_none(value: Any) -> Any:
    """A recipe as it would be written: what is not set is left out."""
    if isinstance(value, Mapping):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    return [_without_none(item) for item in value] if isinstance(value, list | tuple) else value
