"""The safetensors files of a Hugging Face directory: one, or several with an index. No pickle is ever opened.

model.safetensors
model-00001-of-00003.safetensors …, model.safetensors.index.json {"metadata", "weight_map": {tensor: file}}
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from manifest.errors import InputError
from manifest.store import write_atomic

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
FILE_BYTES = 2 << 30
"""About how large a file becomes: what is held in memory at once."""


@dataclass(frozen=True)
class Weights:
    """The tensors of a directory, by name; each is read when it is asked for. prefix: of names, not in the files."""

    files: Mapping[str, Path]
    prefix: str = ""

    def get(self, name: str) -> Tensor:
        """A tensor as it is stored."""
        with safe_open(self.files[name], framework="pt") as opened:
            tensor: Tensor = opened.get_tensor(name.removeprefix(self.prefix))
        return tensor


def open_weights(directory: Path) -> Weights:
    """The tensors of a directory.

    Raises InputError: there are none, a file is missing or damaged, or they are pickled.
    """
    index = directory / INDEX
    paths = _indexed(index) if index.is_file() else [directory / SINGLE]
    if not index.is_file() and not paths[0].is_file():
        raise InputError(_missing(directory))
    files: dict[str, Path] = {}
    for path in paths:
        if not path.is_file():
            raise InputError(f"{path} is missing, and {index.name} names it; copy the whole directory again")
        try:
            with safe_open(path, framework="pt") as opened:
                files |= dict.fromkeys(opened.keys(), path)
        except SafetensorError as error:
            raise InputError(f"{path} is damaged or half written ({error}); copy it again") from error
    return Weights(files)


def _indexed(index: Path) -> list[Path]:
    try:
        named: dict[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        return [index.parent / file for file in sorted(set(named.values()))]
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise InputError(f"{index} is no index of tensors ({error!r}); copy it again") from error


def _missing(directory: Path) -> str:
    pickled = sorted(path.name for pattern in ("*.bin", "*.pt", "*.pth", "*.ckpt") for path in directory.glob(pattern))
    if not pickled:
        return f"{directory} has no {SINGLE} and no {INDEX}; give a directory with a model's weights"
    return (
        f"{directory} has its weights as pickles ({pickled[0]}), which can run code when they are opened. Convert them "
        "where you trust them: AutoModelForCausalLM.from_pretrained(…).save_pretrained(…) writes safetensors"
    )


def write_weights(directory: Path, tensors: Iterable[tuple[str, Tensor]]) -> list[str]:
    """Writes tensors as they come, a file at a time. Returns the names of the files, sorted."""
    held: dict[str, Tensor] = {}
    parts: list[list[str]] = []
    size = total = 0
    for name, tensor in tensors:
        if held and size + _bytes(tensor) > FILE_BYTES:
            parts.append(_flush(directory, len(parts), held))
            held, size = {}, 0
        held[name] = tensor.contiguous()
        size += _bytes(tensor)
        total += _bytes(tensor)
    parts.append(_flush(directory, len(parts), held))
    return _named(directory, parts, total)


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _flush(directory: Path, number: int, held: dict[str, Tensor]) -> list[str]:
    file = directory / f".part-{number}"
    try:
        save_file(held, file, metadata={"format": "pt"})
    except SafetensorError as error:
        raise InputError(f"{file} cannot be written: {error}; make space, or choose another --out") from error
    os.chmod(file, (directory.stat().st_mode & 0o666) | 0o600)  # safetensors writes for the owner only
    return list(held)


def _named(directory: Path, parts: list[list[str]], total: int) -> list[str]:
    count = len(parts)
    names = [SINGLE] if count == 1 else [f"model-{i + 1:05d}-of-{count:05d}.safetensors" for i in range(count)]
    for number, name in enumerate(names):
        (directory / f".part-{number}").rename(directory / name)
    if count > 1:
        where = {tensor: name for name, held in zip(names, parts, strict=True) for tensor in held}
        index: dict[str, Any] = {"metadata": {"total_size": total}, "weight_map": dict(sorted(where.items()))}
        write_atomic(directory / INDEX, (json.dumps(index, indent=2) + "\n").encode())
        names.append(INDEX)
    return sorted(names)


def as_float32(tensor: Tensor) -> Tensor:
    return tensor.to(torch.float32)
