"""A mixture → indexed datasets, a blend per phase, the tokenizer and a README, for Megatron-LM, GPT-NeoX and NeMo.

in:  mixtures/<name>
out: <stream>_text_document.{bin,idx} (or <stream>-<shard>_text_document, of a stream that is too large to be joined),
     <stream>_label_document.{bin,idx} of a stream with masks,
     blends/<phase>.{txt,neox.yml}, tokenizer/, README.md
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from dataproc import progress
from dataproc.export import blend
from dataproc.export.datasets import CHUNK_BYTES, NOT_LEARNED, SUFFIX, Dataset, write
from dataproc.export.directory import export_to, write_text
from dataproc.export.inputs import open_mixture, stream_tokens, tokenizer_of
from dataproc.export.readme import readme
from dataproc.stage import Draft, Made, Request
from manifest.artifact import Opened, verify
from manifest.errors import InputError
from manifest.export import listed
from manifest.mixture import Mixture
from manifest.record import Model, Shard
from manifest.store import write_atomic

STAGE = "export-megatron/1"
JOIN_BYTES = 100_000_000_000
"""Up to so many bytes of tokens the shards of a stream are joined by default."""


class Written(Model):
    """The note of a dataset that is written."""

    files: tuple[Shard, ...]


def export(uri: str, out: Path, *, join_bytes: int = JOIN_BYTES) -> Opened:
    """The export of the mixture at `uri`. Streams of up to `join_bytes` become one dataset, larger ones one per shard.

    Raises ArtifactError for what is no mixture or not whole, InputError for an `out` that is in use or a full disk.
    """
    opened, mixture = open_mixture(uri)
    tokens = stream_tokens(opened)
    datasets = {name: datasets_of(name, mixture, tokens[name].directory, join_bytes) for name in mixture.streams}
    out = out.resolve()
    if any(character.isspace() for character in str(out)):
        raise InputError(f"--out {str(out)!r}: Megatron cuts its list of datasets at spaces; give a path without them")
    # Where it lies is asked for, too: the blends say it.
    config: dict[str, object] = {"join_bytes": join_bytes, "directory": str(out)}
    if any(_labels(datasets)):
        config["labels"] = NOT_LEARNED
    request = Request("export", mixture.name, STAGE, config, {"mixture": opened})
    return export_to(out, request, partial(_make, mixture, datasets, tokenizer_of(opened), out, opened.uri))


def datasets_of(name: str, mixture: Mixture, directory: Path, join_bytes: int) -> list[Dataset]:
    """The datasets of a stream, whose tokens are in `directory`."""
    shards = mixture.streams[name].shards
    whole = Dataset(name + SUFFIX, directory, shards)
    if len(shards) == 1 or whole.bytes <= join_bytes:
        return [whole]
    return [Dataset(f"{name}-{number:05d}{SUFFIX}", directory, (shard,)) for number, shard in enumerate(shards)]


def _labels(datasets: Mapping[str, Sequence[Dataset]]) -> dict[str, Dataset]:
    """The datasets of labels, by the prefix of their tokens."""
    return {d.prefix: labels for parts in datasets.values() for d in parts if (labels := d.labelled()) is not None}


def _make(
    mixture: Mixture, datasets: Mapping[str, Sequence[Dataset]], tokenizer: Opened, out: Path, uri: str, draft: Draft
) -> Made:
    flat = [dataset for parts in datasets.values() for dataset in parts]
    labels = _labels(datasets)
    files = _write_all([*flat, *labels.values()], draft)
    files += _tokenizer(tokenizer, draft.path)
    (draft.path / "blends").mkdir(exist_ok=True)
    names = blend.file_names(mixture)
    label_prefixes = {prefix: dataset.prefix for prefix, dataset in labels.items()}
    for phase in mixture.phases:
        found = blend.blend(mixture, phase, datasets)
        files.append(write_text(draft.path, f"blends/{names[phase.name]}.txt", blend.megatron_text(found, out)))
        files.append(
            write_text(draft.path, f"blends/{names[phase.name]}.neox.yml", blend.neox_text(found, out, label_prefixes))
        )
    command = f"dataproc export {Path(uri).name} --format megatron"
    files.append(write_text(draft.path, "README.md", readme(mixture, datasets, out, command)))
    for sentence in blend.not_carried(mixture):
        progress.say(f"not carried: {sentence}")
    counts = {"documents": sum(d.documents for d in flat), "tokens": sum(d.tokens for d in flat), "datasets": len(flat)}
    return Made(tuple(files), counts)


def _write_all(datasets: Sequence[Dataset], draft: Draft) -> list[Shard]:
    """Every dataset that has no note yet."""
    draft.notes.mkdir(parents=True, exist_ok=True)
    notes = {dataset: draft.notes / f"{dataset.prefix}.json" for dataset in datasets}
    missing = [dataset for dataset in datasets if not notes[dataset].is_file()]
    _require_space(missing, draft.path)
    steps = sum(dataset.chunks for dataset in missing)
    label = f"tokens in chunks of {CHUNK_BYTES // 10**6} MB"
    for _ in progress.track(_written(missing, notes, draft.path), label=label, total=steps, unit="chunks"):
        pass
    return [file for dataset in datasets for file in Written.model_validate_json(notes[dataset].read_bytes()).files]


def _written(datasets: Sequence[Dataset], notes: Mapping[Dataset, Path], out: Path) -> Iterator[None]:
    for dataset in datasets:
        for files in write(dataset, out):
            if files:
                write_atomic(notes[dataset], Written(files=files).model_dump_json().encode())
            yield


def _require_space(datasets: Sequence[Dataset], directory: Path) -> None:
    """Raises InputError if what is joined or labelled, and so written, has no room."""
    needed = sum(dataset.bytes for dataset in datasets if not dataset.shared)
    free = shutil.disk_usage(directory).free
    if needed > free:
        raise InputError(
            f"the disk of {directory.parent} has {free / 1e9:.1f} GB free; joined shards and labels need "
            f"{needed / 1e9:.1f} GB: make space, choose another --out, or share the shards as they are with --join 0"
        )


def _tokenizer(tokenizer: Opened, out: Path) -> list[Shard]:
    """Copies the tokenizer's files."""
    verify(tokenizer.uri)  # one wrong byte here would be wrong in everything that is trained
    (out / "tokenizer").mkdir(exist_ok=True)
    files = []
    for entry in tokenizer.manifest.files():
        (out / "tokenizer" / entry.path).write_bytes((tokenizer.directory / entry.path).read_bytes())
        files.append(listed(out, f"tokenizer/{entry.path}"))
    return files
