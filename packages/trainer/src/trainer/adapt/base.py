"""What a run starts from: a checkpoint, an export of one, or a Hugging Face directory that another program wrote.

    start_from, --base ─► shape, tokenizer, and every parameter by its name        nothing of it is in memory
    run.json           ─► the same, if it is what it was (`Base.verify`)

What Winnow has published has an id by its manifest; for other directories `directory.py` makes a record.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from manifest.artifact import Opened, open_artifact, read_manifest, relative_uri, resolve, verify
from manifest.checkpoint import Checkpoint
from manifest.errors import ArtifactError, InputError, NotAnArtifact, WrongArtifact
from manifest.export import KIND as EXPORT
from manifest.identity import short
from manifest.mixture import Mixture
from manifest.record import MANIFEST, Artifact, Manifest, Reference
from manifest.store import LocalStore
from trainer.adapt import directory
from trainer.huggingface.read import read_hf
from trainer.huggingface.source import hint_at_checkpoints
from trainer.model.shape import Shape
from trainer.stored import stored
from trainer.tokenizer import FILE, find_tokenizer


@dataclass(frozen=True)
class Base:
    """A model that is there. uri: of the checkpoint or the directory. found: a checkpoint's manifest, an export's, or
    the record of a directory that another program wrote; where: its URI. None and empty: there is no record yet.
    """

    uri: str
    shape: Shape
    found: Manifest | None = None
    where: str = ""

    @cached_property
    def manifest(self) -> Manifest:
        """What tells it from others. Reads every file of a directory that has no record yet."""
        return directory.describe(Path(self.uri), self.shape) if self.found is None else self.found

    @property
    def name(self) -> str:
        return self.manifest.name

    @property
    def there(self) -> bool:
        """Whether it can still be read."""
        return self._is_published or Path(self.uri).is_dir()

    @property
    def _is_published(self) -> bool:
        return self.found is not None and self.found.kind != directory.KIND

    def reader(self) -> Callable[[str], Tensor]:
        """What gives each parameter by our name, in fp32, when it is asked for.

        Raises InputError if they are not those of its shape, now or then.
        """
        if isinstance(self.found, Checkpoint):
            return stored(open_artifact(self.uri, kind="checkpoint")).parameter
        model = read_hf(Path(self.uri))
        return lambda name: dict(model.tensors([name]))[name]

    def tokenizer_digest(self) -> str | None:
        """The digest of its tokenizer, if it is of Winnow's making."""
        if not isinstance(self.found, Checkpoint):
            return None
        mixture = _mixture_of(self.uri, self.found).manifest
        assert isinstance(mixture, Mixture)
        return mixture.tokenizer.digest

    def tokenizer(self) -> Path:
        """Its tokenizer.json. Raises InputError if there is none."""
        if not isinstance(self.found, Checkpoint):
            return read_hf(Path(self.uri)).tokenizer()
        why = "was made with a tokenizer that tells whether another mixture can follow,"
        return find_tokenizer(_mixture_of(self.uri, self.found), why=why, advice="Restore it").directory / FILE

    def verify(self) -> None:
        """Reads every byte of it. Raises CorruptArtifact, or WrongArtifact for a directory that was changed."""
        if self._is_published:
            verify(self.uri)
        else:
            assert isinstance(self.manifest, Artifact)
            directory.verify(self.manifest, Path(self.uri))

    def reference(self, at: str) -> Reference:
        """It, as the artifact at `at` refers to it."""
        assert self.where, "published before it is referred to"
        manifest = self.manifest
        return Reference(kind=manifest.kind, name=manifest.name, id=manifest.id, uri=relative_uri(self.where, at))


def open_base(place: str, store: LocalStore | None = None) -> Base:
    """The model at a path. store: where a directory may be known already, so that its files need not be read again, or
    not be there any more.

    Raises InputError: there is none, or it is no model that the decoder can be.
    """
    path = Path(place)
    if "://" in place or (path / MANIFEST).is_file() or path.name == MANIFEST:
        return _published(place)
    if path.is_dir():
        hint_at_checkpoints(path)
        shape = read_hf(path).shape
        found = directory.known(store, path) if store is not None else None
        if found is not None:
            return Base(str(path.resolve()), shape, found.manifest, found.uri)
        return Base(str(path.resolve()), shape)
    found = directory.known(store, path) if store is not None and not path.exists() else None
    if found is None:
        raise InputError(
            f"{place} is no model: there is no such directory; give one with a config.json and safetensors, or a "
            "checkpoint (<store>/runs/<run>/checkpoints/<step>)"
        )
    return Base(str(path.resolve()), _shape_in(found.manifest), found.manifest, found.uri)


def _published(place: str) -> Base:
    try:
        uri, manifest = read_manifest(place)
    except NotAnArtifact:
        hint_at_checkpoints(Path(place))
        raise
    if isinstance(manifest, Checkpoint):
        return Base(uri, Shape.model_validate(manifest.state["model"]), manifest, uri)
    if manifest.kind == EXPORT and (Path(uri) / "config.json").is_file():
        return Base(uri, read_hf(Path(uri)).shape, manifest, uri)
    raise WrongArtifact(
        f"{uri} is a {manifest.kind} ({manifest.name}); a run starts from a checkpoint, an export of one, or a Hugging "
        "Face directory"
    )


def open_referred(at: str, reference: Reference) -> Base:
    """What the run, or the artifact, at `at` refers to. Raises ArtifactError if it is gone, or another one now."""
    uri = resolve(at, reference.uri)
    try:
        _, manifest = read_manifest(uri)
    except NotAnArtifact as error:
        raise NotAnArtifact(f"{uri}: there is no {reference.name}, which {at} starts from; restore it") from error
    if manifest.id != reference.id:
        raise WrongArtifact(f"{uri} is {short(manifest.id)} now; {at} starts from {short(reference.id)}. Restore it")
    if manifest.kind != directory.KIND:
        return _published(uri)
    return Base(directory.place_of(uri, manifest), _shape_in(manifest), manifest, uri)


def published(base: Base, store: LocalStore) -> Base:
    """The base, with a manifest that can be referred to: the record of a directory goes into the store."""
    if base.where:
        return base
    assert isinstance(base.manifest, Artifact)
    opened = directory.publish(store, base.manifest)
    return Base(base.uri, base.shape, opened.manifest, opened.uri)


def _shape_in(manifest: Manifest) -> Shape:
    assert isinstance(manifest, Artifact)
    return Shape.model_validate(manifest.summary["shape"])


def _mixture_of(uri: str, record: Checkpoint) -> Opened:
    """The manifest of the last mixture that a checkpoint's run reads. Its files are not looked at."""
    segments = record.timeline.order.segments
    wanted = [r for r in record.inputs.values() if r.kind == "mixture" and segments and r.id == segments[-1].mixture]
    if not wanted:
        raise ArtifactError(f"{uri} does not say which mixture it was trained on, so its tokenizer is not known")
    where = resolve(uri, wanted[0].uri)
    try:
        found, manifest = read_manifest(where, kind="mixture")
    except NotAnArtifact as error:
        raise NotAnArtifact(
            f"{where}: the mixture of {uri} is not there, and with it the model's tokenizer; restore it"
        ) from error
    if manifest.id != wanted[0].id:
        raise WrongArtifact(f"{where} is {short(manifest.id)}; {uri} was trained on {short(wanted[0].id)}; restore it")
    return Opened(found, manifest, Path(found))


def fields_of(shape: Shape) -> dict[str, Any]:
    """The dimensions of a decoder as a size has them."""
    return {key: getattr(shape, key) for key in ("layers", "width", "heads", "filter", "kv_heads", "head_dim")}
