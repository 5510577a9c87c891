"""A Hugging Face directory → the decoder that it is: its shape, its weights under our names, its tokenizer.

config.json ─► family ─► shape          *.safetensors ─► names ─► parameters, fp32          tokenizer.json
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import ValidationError
from torch import Tensor

from manifest.errors import InputError
from trainer.huggingface.families import family_of
from trainer.huggingface.family import Family
from trainer.huggingface.names import Entry, entries, split
from trainer.huggingface.settings import Settings, read_settings
from trainer.huggingface.weights import Weights, as_float32, open_weights
from trainer.model.decoder import Decoder
from trainer.model.shape import Shape

TOKENIZER, SENTENCEPIECE = "tokenizer.json", "tokenizer.model"
DERIVED = ("rotary_emb.inv_freq", ".attn.bias", ".attn.masked_bias", ".attention.bias", ".attention.masked_bias")
"""Ends of the names of what older versions stored besides the parameters: tables and masks."""


@dataclass(frozen=True)
class Pretrained:
    """A model in a directory. Nothing but its configuration and the names of its tensors is in memory."""

    directory: Path
    family: Family
    shape: Shape
    weights: Weights
    entries: tuple[Entry, ...]

    def tensors(self, wanted: Collection[str] | None = None) -> Iterator[tuple[str, Tensor]]:
        """Every parameter of the decoder, once, in fp32; or those of the entries that hold one of `wanted`.

        Raises InputError if one has another shape.
        """
        names = self.family.names
        for entry in self.entries:
            if wanted is not None and not set(entry.ours) & set(wanted):
                continue
            try:
                parts = split(names, self.shape, entry, as_float32(self.weights.get(entry.theirs)))
            except ValueError as error:
                raise InputError(
                    f"{self.weights.files[entry.theirs]}: {error}, which does not go with {self.directory}/config.json"
                ) from error
            yield from zip(entry.ours, parts, strict=True)

    def decoder(self) -> Decoder:
        """The decoder, on the CPU, in evaluation mode."""
        with torch.device("meta"):
            decoder = Decoder(self.shape)
        decoder.load_state_dict(dict(self.tensors()), assign=True)
        return decoder.eval()

    def tokenizer(self) -> Path:
        """Its tokenizer.json. Raises InputError if there is none."""
        file = self.directory / TOKENIZER
        if file.is_file():
            return file
        hint = ""
        if (self.directory / SENTENCEPIECE).is_file():
            hint = f"; AutoTokenizer.from_pretrained(…).save_pretrained(…) makes one of {SENTENCEPIECE}"
        raise InputError(f"{self.directory} has no {TOKENIZER}{hint}")


def read_hf(directory: Path) -> Pretrained:
    """The model in a Hugging Face directory.

    Raises InputError: there is none, it is of a family that the decoder does not cover, or its tensors are not those of
    its configuration, pickled, or damaged.
    """
    settings = read_settings(directory)
    family = family_of(settings)
    shape = _shape(family, settings)
    weights = open_weights(directory)
    wanted = tuple(entries(family.names, shape))
    weights = _without_prefix(weights, {entry.theirs for entry in wanted})
    _require_same(directory, weights, wanted, shape)
    return Pretrained(directory, family, shape, weights, wanted)


def _shape(family: Family, settings: Settings) -> Shape:
    try:
        shape = family.shape(settings)
    except ValidationError as error:
        found = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        raise InputError(f"{settings.file} is no model that Winnow's decoder can be: {found}") from error
    if shape.heads % shape.kv_heads or (shape.architecture.position == "rope" and shape.rotary_dims == 0):
        raise InputError(
            f"{settings.file}: {shape.heads} heads of {shape.head_dim} dimensions do not divide into groups of "
            f"{shape.kv_heads}, or none of their dimensions is rotated"
        )
    return shape


def _without_prefix(weights: Weights, wanted: set[str]) -> Weights:
    """GPT-2's own files leave out `transformer.`; the tensors are stored under the names that they have."""
    if wanted & set(weights.files) or not any(f"transformer.{name}" in wanted for name in weights.files):
        return weights
    return Weights({f"transformer.{name}": path for name, path in weights.files.items()}, prefix="transformer.")


def _require_same(directory: Path, weights: Weights, wanted: tuple[Entry, ...], shape: Shape) -> None:
    names = {entry.theirs for entry in wanted}
    lacking = sorted(names - set(weights.files))
    if lacking:
        raise InputError(
            f"{directory} lacks {len(lacking)} of the {len(names)} tensors that its config.json asks for, "
            f"{lacking[0]} among them; copy the whole directory again"
        )
    repeated = {"lm_head.weight", "embed_out.weight"} if shape.architecture.tied else set()
    extra = sorted(name for name in set(weights.files) - names - repeated if not name.endswith(DERIVED))
    if extra:
        raise InputError(
            f"{directory} has {len(extra)} tensors that Winnow's decoder has no place for, {extra[0]} among them; it "
            "is another architecture than its config.json says"
        )
