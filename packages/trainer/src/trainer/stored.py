"""The parameters of a checkpoint, by name, each read when it is asked for: as stored, or as the plain decoder has them.

Beside what was frozen a checkpoint holds what was trained (model/adapters.py); `state.adapters` says what that is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from manifest.artifact import Opened
from manifest.checkpoint import Checkpoint
from manifest.errors import CorruptArtifact
from trainer.model.adapters import beside, merged
from trainer.model.parameters import parameter_sizes
from trainer.model.shape import Shape


@contextmanager
def tensors_in(file: Path) -> Iterator[Any]:
    """The tensors of a safetensors file. Raises CorruptArtifact if it is something else, which is not looked into."""
    try:
        with safe_open(file, framework="pt") as tensors:
            yield tensors
    except SafetensorError as error:
        raise CorruptArtifact(f"{file} is not safetensors ({error}); take another checkpoint of the run") from error


@dataclass(frozen=True)
class Stored:
    """files: where each tensor is, what stands beside frozen parameters included."""

    files: Mapping[str, Path]
    adapters: Mapping[str, Any] | None

    def tensor(self, name: str) -> Tensor:
        """A tensor as it is stored, in fp32."""
        with tensors_in(self.files[name]) as tensors:
            found: Tensor = tensors.get_tensor(name)
        return found

    def parameter(self, name: str) -> Tensor:
        """A parameter of the plain decoder, in fp32."""
        return merged(name, self.tensor, self.adapters)


def stored(opened: Opened) -> Stored:
    """The parameters of a checkpoint. Raises CorruptArtifact if they are not those of the model that it names."""
    record = opened.manifest
    assert isinstance(record, Checkpoint)
    files = {name: opened.directory / file.path for file in record.weights for name in file.parameters}
    shape, adapters = Shape.model_validate(record.state["model"]), record.state.get("adapters")
    expected = {*parameter_sizes(shape), *beside(adapters, shape)}
    if set(files) != expected:
        differing = sorted(set(files) ^ expected)
        raise CorruptArtifact(
            f"{opened.uri} has other parameters than the model that it names: {differing[0]} is in one of the two; "
            "take another checkpoint of the run"
        )
    return Stored(files, adapters)
