"""The record of a model that another program wrote: an artifact without files, whose inputs are the directory's.

    bases/<directory's name>-<hash of its content and place>/manifest.json
        inputs     config.json, tokenizer.json and the weights, each with its SHA-256; `manifest lineage --verify` reads
                   them again
        summary    the shape of the decoder
        producer   sizes and times of the files when they were read: while these stay, they are not read again

It is in the store of the run that starts from the model, and stays when the model is gone.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from manifest.artifact import Opened, open_artifact, relative_uri, resolve
from manifest.errors import WrongArtifact
from manifest.identity import digest_of, short
from manifest.record import Artifact, Manifest, Producer, Reference, fingerprint, now
from manifest.store import LocalStore
from trainer.huggingface.read import TOKENIZER
from trainer.huggingface.settings import CONFIG
from trainer.huggingface.weights import INDEX, open_weights
from trainer.model.shape import Shape

KIND = "bases"
STAGE = "base/1"


def describe(path: Path, shape: Shape) -> Artifact:
    """The record of a directory, which reads all of its files. Its uris are absolute until it is published."""
    path = path.resolve()
    files = {file.name: file for file in _files(path)}
    inputs = {
        name: Reference(kind="raw", name=f"{path.name}/{name}", id=_sha256(file), uri=str(file))
        for name, file in files.items()
    }
    record = Artifact(
        kind=KIND,
        name=re.sub(r"[^A-Za-z0-9._-]+", "-", path.name).strip("-.") or "model",
        stage=STAGE,
        fingerprint=fingerprint(STAGE, config={}, inputs=inputs, libraries={}),
        digest=digest_of({name: reference.id for name, reference in inputs.items()}),
        inputs=inputs,
        summary={"shape": shape.model_dump(mode="json"), "parameters": shape.parameters},
        producer=Producer(program="trainer fit", version=version("winnow-trainer"), measured=_seen(files)),
        created=now(),
    )
    return record.identified()


def publish(store: LocalStore, record: Artifact) -> Opened:
    """Puts a record into the store, unless it is there."""
    place = record.inputs[CONFIG].uri  # a copy elsewhere has a record of its own, of the same id
    path = f"{KIND}/{record.name}-{short(digest_of([record.fingerprint, place]))}"
    if store.manifest(path) is None:
        inputs = {
            name: reference.model_copy(update={"uri": relative_uri(reference.uri, store.where(path))})
            for name, reference in record.inputs.items()
        }
        with store.draft(path) as draft:
            store.publish(path, draft, record.model_copy(update={"inputs": inputs}))
    return open_artifact(store.where(path), kind=KIND)


def known(store: LocalStore, path: Path) -> Opened | None:
    """The record of the directory, if it is in the store and its files seem to be what they were, or are all gone."""
    wanted = path.resolve()
    for name in store.list(KIND):
        where = store.where(f"{KIND}/{name}")
        record = store.manifest(f"{KIND}/{name}")
        assert isinstance(record, Artifact)
        if Path(place_of(where, record)) == wanted and _unchanged(record, wanted):
            return Opened(where, record, Path(where))
    return None


def place_of(where: str, record: Manifest) -> str:
    """The directory that the record at `where` is of."""
    return str(Path(resolve(where, record.inputs[CONFIG].uri)).parent)


def verify(record: Artifact, path: Path) -> None:
    """Reads every file. Raises WrongArtifact if one is gone or another now."""
    for name, reference in record.inputs.items():
        file = path / name
        if not file.is_file() or _sha256(file) != reference.id:
            raise WrongArtifact(
                f"{file} {'is not' if file.is_file() else 'is missing; it was'} the file of SHA-256 "
                f"{short(reference.id)}… that the run was planned with; restore it, or run the command again"
            )


def _unchanged(record: Artifact, path: Path) -> bool:
    if not path.exists():
        return True
    files = {file.name: file for file in _files(path)}
    return record.producer is not None and _seen(files) == record.producer.measured


def _files(path: Path) -> Iterator[Path]:
    """Those that say what the model is."""
    for name in (CONFIG, TOKENIZER, INDEX):
        if (path / name).is_file():
            yield path / name
    yield from sorted(set(open_weights(path).files.values()))


def _seen(files: dict[str, Path]) -> dict[str, float | int | str]:
    return {
        f"{name} {what}": value
        for name, file in files.items()
        for what, value in (("bytes", file.stat().st_size), ("modified_ns", file.stat().st_mtime_ns))
    }


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
