"""LoRA's matrices in the format of Hugging Face PEFT: out of a checkpoint, and onto another one.

adapter_config.json             rank, alpha, targets; `auto_mapping.base_sha256` says which base they belong to
adapter_model.safetensors       base_model.model.<their module>.lora_{A,B}.weight

PEFT itself is not needed for either. A module of theirs must hold one matrix of ours, so classes that stack query, key
and value (Phi-3, GPT-NeoX, GPT-2, Winnow's own) are refused; merged into the weights LoRA goes into any.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from manifest.errors import InputError
from manifest.identity import digest_of, short
from trainer.huggingface import fold
from trainer.huggingface.convert import DTYPES, Conversion
from trainer.huggingface.names import Entry, entries
from trainer.huggingface.source import Source
from trainer.recipe_lora import A, B, Lora, lora_sizes, matrices
from trainer.stored import Stored
from trainer.trainable import Trainable

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."
BASE = "base_sha256"


def lora_of(source: Source) -> Lora:
    """The LoRA of a checkpoint. Raises InputError if it has none."""
    adapters = source.stored.adapters
    how = None if adapters is None else Trainable.model_validate(adapters)
    if how is None or how.lora is None:
        raise InputError(
            f"{source.opened.uri} has no LoRA to save alone: its last phase trains other parameters; export it with "
            "--format hf, or give a checkpoint of a phase with `trainable: {lora: …}`"
        )
    return how.lora


def base_digest(source: Source, made: Conversion) -> str:
    """What a base is: the digest of its Hugging Face tensors' names and numbers in fp32, LoRA left out."""
    plain = replace(made, dtype="float32", bits=None)
    return digest_of({name: _sha256(tensor) for name, tensor in plain.tensors(_frozen(source))})


def _frozen(source: Source) -> Any:
    lora = None if source.stored.adapters is None else Trainable.model_validate(source.stored.adapters).lora
    return source.parameter if lora is None else source.stored.tensor


def _sha256(tensor: Tensor) -> str:
    return hashlib.sha256(tensor.contiguous().numpy().tobytes()).hexdigest()


def write_adapter(source: Source, made: Conversion, directory: Path) -> int:
    """Writes both files. Returns the bytes of the tensors.

    Raises InputError if the checkpoint has no LoRA, or its class stacks matrices.
    """
    lora = lora_of(source)
    places = _places(made, [name.removesuffix(A) for name, _ in lora_sizes(lora, source.shape) if name.endswith(A)])
    tensors: dict[str, Tensor] = {}
    for module, entry in places.items():
        theirs = PREFIX + entry.theirs.removesuffix(".weight")
        b_OR = source.stored.tensor(module + B) * _factor(made, entry)
        for end, tensor in (("A", source.stored.tensor(module + A)), ("B", b_OR)):
            tensors[f"{theirs}.lora_{end}.weight"] = tensor.to(DTYPES[made.dtype]).contiguous()
    save_file(tensors, directory / WEIGHTS, metadata={"format": "pt"})
    (directory / WEIGHTS).chmod((directory.stat().st_mode & 0o666) | 0o600)  # safetensors writes for the owner only
    targets = [entry.theirs.removesuffix(".weight") for entry in places.values()]
    config = _config(lora, made, _shared(made, targets), base_digest(source, made))
    (directory / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def _places(made: Conversion, modules: list[str]) -> dict[str, Entry]:
    """Their tensor for each of our modules. Raises InputError if one holds several, or is transposed."""
    holders = {
        name.removesuffix(".weight"): entry for entry in entries(made.names, made.converted) for name in entry.ours
    }
    for module in modules:
        entry = holders[module]
        if len(entry.ours) > 1 or entry.transposed or made.names.pairs:
            raise InputError(
                f"--format peft: {made.architecture} holds {' and '.join(entry.ours)} in {entry.theirs}, stacked or "
                "transposed, beside which PEFT's two matrices cannot stand for ours; --format hf merges them into the "
                "weights"
            )
    return {module: holders[module] for module in modules}


def _factor(made: Conversion, entry: Entry) -> float:
    """What of muP is folded into a matrix, and so into B."""
    return 1.0 if made.family.multiplies else fold.factor(made.shape, entry.ours[0])


def _shared(made: Conversion, targets: list[str]) -> list[str]:
    """The targets by the last part of their names, if every layer has them all, as PEFT usually names them."""
    ends = sorted({target.rpartition(".")[2] for target in targets})
    every = {
        e.theirs.removesuffix(".weight") for e in entries(made.names, made.converted) if e.ours[0].startswith("layers.")
    }
    meant = {name for name in every if name.rpartition(".")[2] in ends}
    return ends if meant == set(targets) else sorted(targets)


def _config(lora: Lora, made: Conversion, targets: list[str], digest: str) -> dict[str, Any]:
    alpha = int(lora.alpha) if lora.alpha.is_integer() else lora.alpha
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": None,  # a base is known by its digest; where it lies is the reader's to say
        "r": lora.rank,
        "lora_alpha": alpha,
        "lora_dropout": lora.dropout,
        "target_modules": targets,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        # The one free place that PEFT leaves as it is: a key of its own would be warned of on every load.
        "auto_mapping": {"base_model_class": made.architecture, "parent_library": "transformers", BASE: digest},
    }


@dataclass(frozen=True)
class Adapted(Stored):
    """A base's parameters, and LoRA's beside them."""

    beside: Mapping[str, Tensor]

    def tensor(self, name: str) -> Tensor:
        """A tensor of either."""
        return self.beside[name] if name in self.beside else super().tensor(name)


def with_adapter(source: Source, made: Conversion, directory: Path) -> Source:
    """A checkpoint with the LoRA of a directory in PEFT's format.

    Raises InputError: there is none, it belongs to another base, or it is of a kind that this does not read.
    """
    _require_files(directory)
    config = _read_config(directory)
    lora = Lora(rank=config["r"], alpha=config["lora_alpha"])
    if source.stored.adapters is not None:
        raise InputError(f"{source.opened.uri} has trained parts of its own beside its weights; give a plain base")
    _require_base(config, source, made, directory)
    tensors = dict(_inwards(directory, source, made, lora))
    modules = tuple(sorted({name.removesuffix(A) for name in tensors if name.endswith(A)}))
    adapters = Trainable(lora=lora.model_copy(update={"targets": modules})).model_dump()
    return replace(source, stored=Adapted(source.stored.files, adapters, tensors))


def _read_config(directory: Path) -> dict[str, Any]:
    file = directory / CONFIG
    try:
        config: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"--adapter {directory}: {CONFIG} cannot be read ({error}); give a directory of PEFT's"
        ) from error
    unread = ("use_rslora", "use_dora", "rank_pattern", "alpha_pattern", "modules_to_save", "fan_in_fan_out")
    odd = [key for key in unread if config.get(key)] + (["bias"] if config.get("bias", "none") != "none" else [])
    odd += [] if config.get("peft_type") == "LORA" else ["peft_type"]
    if odd:
        found = ", ".join(f"{key} {config.get(key)!r}" for key in odd)
        raise InputError(f"{file}: found {found}; this version reads plain LoRA, with one rank and alpha for all")
    return config


def _require_base(config: Mapping[str, Any], source: Source, made: Conversion, directory: Path) -> None:
    wanted = (config.get("auto_mapping") or {}).get(BASE)
    found = base_digest(source, made)
    if wanted is not None and wanted != found:
        raise InputError(
            f"--adapter {directory} was trained on another base: its {CONFIG} names {short(wanted)}, and "
            f"{source.opened.uri} is {short(found)}; give the base that it was trained on"
        )


def _inwards(directory: Path, source: Source, made: Conversion, lora: Lora) -> Iterator[tuple[str, Tensor]]:
    """Our matrices, of theirs. Raises InputError if one belongs to no matrix of the base, or is of another shape."""
    holders = {entry.theirs.removesuffix(".weight"): entry for entry in entries(made.names, made.converted)}
    known = matrices(source.shape)
    file = directory / WEIGHTS
    try:
        with safe_open(file, framework="pt") as opened:
            held = {name: opened.get_tensor(name).to(torch.float32) for name in opened.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise InputError(f"{file} cannot be read ({error}); give a directory of PEFT's, with safetensors") from error
    for name, tensor in held.items():
        module, _, end = name.removeprefix(PREFIX).removesuffix(".weight").rpartition(".lora_")
        entry = holders.get(module)
        ours = "" if entry is None else entry.ours[0].removesuffix(".weight")
        if entry is None or ours not in known or len(entry.ours) > 1 or end not in ("A", "B"):
            raise InputError(f"{file}: {name} stands beside no matrix of {source.opened.uri}; give the base it is for")
        outputs, inputs = known[ours]
        expected = (lora.rank, inputs) if end == "A" else (outputs, lora.rank)
        if tuple(tensor.shape) != expected:
            raise InputError(f"{file}: {name} is {tuple(tensor.shape)}; beside this base it would be {expected}")
        yield (ours + A, tensor) if end == "A" else (ours + B, tensor / _factor(made, entry))


def _require_files(directory: Path) -> None:
    lacking = [name for name in (CONFIG, WEIGHTS) if not (directory / name).is_file()]
    if lacking:
        raise InputError(f"--adapter {directory} has no {lacking[0]}; give a directory that PEFT or Winnow has written")


def adapter_digest(directory: Path) -> str:
    """What an adapter is: the digest of its two files. Raises InputError if one is missing."""
    _require_files(directory)
    return digest_of({name: hashlib.sha256((directory / name).read_bytes()).hexdigest() for name in (CONFIG, WEIGHTS)})
