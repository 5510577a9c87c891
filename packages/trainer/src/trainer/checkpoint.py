"""Checkpoints: safetensors and a manifest, no pickle; independent of the number of workers and of the stage of ZeRO.

    runs/<run>/checkpoints/<step>/
        weights-00000.safetensors …          every parameter, whole, fp32
        exp_avg-00000.safetensors …          full checkpoints: AdamW's moments of those that are trained, by their names
        exp_avg_sq-00000.safetensors …
        manifest.json                        kind checkpoint; `state` as below

    state: model (the decoder's shape), seed (with the step, it decides every random number), groups (their settings),
           optimizer_steps (AdamW's step counter); where parameters are frozen, frozen (the SHA-256 of each) and
           adapters (what stands beside them: model/adapters.py)

All ranks take part in a save: each tensor is gathered on all of them, and file i is written by rank i mod world.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from manifest.artifact import Opened, open_artifact, verify
from manifest.checkpoint import Checkpoint, TensorFile
from manifest.errors import CorruptArtifact, WrongArtifact
from manifest.store import Store
from trainer.engine import MOMENTS, Engine
from trainer.model.adapters import beside, from_plain, merged
from trainer.model.decoder import Decoder
from trainer.model.shape import Shape
from trainer.stored import stored, tensors_in
from trainer.trainable import Trainable

FILE_BYTES = 1 << 30
"""About how large a safetensors file becomes: what a rank holds at once while saving."""

WEIGHTS = "weights"


@dataclass(frozen=True)
class _Part:
    """One file to be written: some parameters' weights or one of their moments."""

    path: str
    moment: str | None
    parameters: tuple[str, ...]


def save(engine: Engine, store: Store, path: str, record: Checkpoint) -> None:
    """Publishes the engine's state at `path`, with moments if `record.full`. Collective.

    record: the manifest without its files and without what the engine knows (groups and optimizer_steps of `state`).
    """
    # Every rank works out the same list of files; only rank 0 has the draft open, and tells the others where it is.
    if engine.rank == 0:
        with store.draft(path) as draft:
            _empty(draft)
            files = _write(engine, engine.collect(str(draft))[0], record.full)
            store.publish(path, draft, _completed(record, files, engine))
        engine.collect("published")
    else:
        _write(engine, engine.collect("")[0], record.full)
        engine.collect("published")


def _write(engine: Engine, directory: str, full: bool) -> list[TensorFile]:
    """Writes this rank's files, and returns the entries of all files."""
    written: list[dict[str, Any]] = []
    for index, part in enumerate(_parts(engine, full)):
        own = index % engine.world == engine.rank
        tensors: dict[str, Tensor] = {}
        for name in part.parameters:
            gathered = engine.gather(name, part.moment)
            if own:
                tensors[name] = gathered.contiguous()
        if own:
            written.append(_save_file(Path(directory) / part.path, tensors).model_dump())
    entries = [entry for said in engine.collect(json.dumps(written)) for entry in json.loads(said)]
    return sorted((TensorFile.model_validate(entry) for entry in entries), key=lambda entry: entry.path)


def _parts(engine: Engine, full: bool) -> Iterator[_Part]:
    for moment in (None, *MOMENTS) if full else (None,):
        for index, names in enumerate(_filled(engine.parameters() if moment is None else _trained(engine))):
            yield _Part(f"{moment or WEIGHTS}-{index:05d}.safetensors", moment, names)


def _filled(parameters: Mapping[str, torch.Size]) -> Iterator[tuple[str, ...]]:
    """The parameters in order, cut where a file would grow beyond FILE_BYTES."""
    names: list[str] = []
    size = 0
    for name, shape in parameters.items():
        if names and size + 4 * shape.numel() > FILE_BYTES:
            yield tuple(names)
            names, size = [], 0
        names.append(name)
        size += 4 * shape.numel()
    yield tuple(names)


def _trained(engine: Engine) -> dict[str, torch.Size]:
    shapes = engine.parameters()
    return {name: shapes[name] for name in engine.trained()}


def _save_file(path: Path, tensors: dict[str, Tensor]) -> TensorFile:
    try:
        # One key of metadata only: safetensors writes several in random order, and equal states shall be equal bytes.
        save_file(tensors, path, metadata={"format": "pt"})
    except SafetensorError as error:
        system = re.search(r"\(os error (\d+)\)", str(error))  # how it passes on a full disk
        if system is None:
            raise
        raise OSError(int(system[1]), os.strerror(int(system[1])), str(path)) from error
    path.chmod(_file_mode())  # safetensors writes for the owner only
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        os.fsync(file.fileno())
    return TensorFile(path=path.name, bytes=path.stat().st_size, sha256=digest, parameters=tuple(tensors))


def _file_mode() -> int:
    """The mode of a new file."""
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


def _empty(draft: Path) -> None:
    """A draft that a killed attempt left may hold files of another world size."""
    for entry in draft.iterdir():
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


def _completed(record: Checkpoint, files: Sequence[TensorFile], engine: Engine) -> Checkpoint:
    known = {"groups": engine.hyperparameters(), "optimizer_steps": engine.optimizer_steps()}
    return record.model_copy(
        update={
            "weights": tuple(file for file in files if file.path.startswith(WEIGHTS)),
            "moments": tuple(file for file in files if not file.path.startswith(WEIGHTS)),
            "state": {**record.state, **known},
        }
    )


def restore(engine: Engine, opened: Opened) -> Checkpoint:
    """Puts a full checkpoint into an engine, and checks that it is in. Every rank calls it.

    Raises:
        CorruptArtifact: a file is not what the manifest says (rank 0 reads them all), or a tensor is missing.
        WrongArtifact: it holds no optimiser, another model, or other settings of a group than the recipe.
    """
    record = opened.manifest
    assert isinstance(record, Checkpoint)
    if not record.full:
        raise WrongArtifact(f"{opened.uri} holds weights only; training goes on from a full checkpoint")
    if engine.rank == 0:
        verify(opened.uri)
    for name, tensor in _tensors(opened, record.weights, engine.parameters()):
        engine.scatter(name, tensor)
    for moment in MOMENTS:
        files = [file for file in record.moments if file.path.startswith(f"{moment}-")]
        for name, tensor in _tensors(opened, files, _trained(engine)):
            engine.scatter(name, tensor, moment)
    steps = int(record.state["optimizer_steps"])
    engine.set_optimizer_steps(steps)
    if engine.hyperparameters() != record.state["groups"]:
        raise WrongArtifact(
            f"{opened.uri} was trained with the groups {record.state['groups']}; the recipe has "
            f"{engine.hyperparameters()}"
        )
    assert engine.optimizer_steps() == steps
    return record


def begin(engine: Engine, opened: Opened, trainable: Trainable) -> Checkpoint:
    """Puts a checkpoint's weights into an engine that trains others than it did; the optimiser begins anew.

    What was trained beside frozen parameters is merged into them.

    Every rank calls it. Raises CorruptArtifact as `restore` does.
    """
    record = opened.manifest
    assert isinstance(record, Checkpoint)
    if engine.rank == 0:
        verify(opened.uri)
    weights = stored(opened)
    for name in engine.parameters():
        value = from_plain(name, weights.parameter, trainable)
        if value is not None:
            engine.scatter(name, value)
    return record


def _tensors(
    opened: Opened, files: Sequence[TensorFile], expected: Mapping[str, torch.Size]
) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of some files, each once. Raises CorruptArtifact or WrongArtifact if they are not those expected."""
    missing = dict(expected)
    for file in files:
        with tensors_in(opened.directory / file.path) as tensors:
            for name in file.parameters:
                tensor = tensors.get_tensor(name)
                if missing.pop(name, None) != tensor.shape:
                    raise WrongArtifact(
                        f"{opened.uri}: {file.path} has {name} of shape {tuple(tensor.shape)}; the model has "
                        f"{tuple(expected[name]) if name in expected else 'no such parameter'}"
                    )
                yield name, tensor
    if missing:
        raise CorruptArtifact(f"{opened.uri} lacks {len(missing)} tensors, {next(iter(missing))} among them; delete it")


def load_model(uri: str | Path) -> tuple[Decoder, Checkpoint]:
    """The decoder of a checkpoint, on the CPU, in evaluation mode, and the checkpoint's manifest.

    Raises ArtifactError: there is no checkpoint, or its tensors are not those of the model that it names.
    """
    opened = open_artifact(uri, kind="checkpoint")
    verify(opened.uri)  # every byte is read anyway, and a damaged weight would pass for a trained one
    record = opened.manifest
    assert isinstance(record, Checkpoint)
    with torch.device("meta"):
        decoder = Decoder(Shape.model_validate(record.state["model"]))
    adapters = record.state.get("adapters")
    expected = {name: parameter.shape for name, parameter in decoder.named_parameters()}
    extra = {name: torch.Size(size) for name, size in beside(adapters, decoder.shape).items()}
    held = dict(_tensors(opened, record.weights, expected | extra))
    decoder.load_state_dict({name: merged(name, held.__getitem__, adapters) for name in expected}, assign=True)
    return decoder.eval(), record
