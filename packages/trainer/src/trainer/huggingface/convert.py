"""Our parameters → the tensors and the config.json of a Hugging Face directory.

parameters ─► [fold muP] ─► [pad the filter] ─► join, permute, transpose ─► [pack into 4 bits] ─► dtype
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trainer.huggingface import fold, int4
from trainer.huggingface.families import family_for
from trainer.huggingface.family import Family
from trainer.huggingface.names import Entry, Names, entries, join
from trainer.huggingface.winnow import WINNOW, is_jais
from trainer.model.shape import Shape

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

Get = Callable[[str], Tensor]
"""A parameter of the decoder, by its name."""


@dataclass(frozen=True)
class Conversion:
    """How a decoder becomes a Hugging Face model. bits: of a matrix, None for the dtype's.

    length: the longest window that it was trained on. end_of_text: the token's id, None if it is not known.
    """

    shape: Shape
    family: Family
    dtype: str
    bits: int | None
    length: int
    end_of_text: int | None

    @property
    def converted(self) -> Shape:
        """The shape that the directory's model has."""
        shape = self.shape if self.family.multiplies else fold.without_mup(self.shape)
        return shape if self.bits is None else shape.model_copy(update={"filter": int4.padded_filter(shape)})

    @property
    def names(self) -> Names:
        names = self.family.names
        # Codes are of outputs by inputs.
        return names if self.bits is None else names.untransposed()

    @property
    def architecture(self) -> str:
        """The name of the class. Jais's where its own class would do: vLLM and llama.cpp know it by that name."""
        if self.family is WINNOW and self.bits is None and is_jais(self.shape):
            return "JAISLMHeadModel"
        return self.family.architecture

    def config(self) -> dict[str, Any]:
        """config.json."""
        shape, family = self.converted, self.family
        config = {"architectures": [self.architecture], "model_type": family.kinds[0]} | family.config(shape)
        if shape.architecture.max_positions is None:
            config["n_positions" if family is WINNOW else "max_position_embeddings"] = self.length
        if self.bits is not None:
            config |= {"weight_bits": self.bits, "weight_group": int4.group_size(shape)}
        ends = {"bos_token_id": self.end_of_text, "eos_token_id": self.end_of_text}
        # `dtype` is what transformers 5 reads, `torch_dtype` what 4 does.
        return config | ends | {"dtype": self.dtype, "torch_dtype": self.dtype, "use_cache": True}

    def tensors(self, get: Get) -> Iterator[tuple[str, Tensor]]:
        """Every tensor, once, made when it is asked for."""
        shape, names = self.converted, self.names
        for entry in entries(names, shape):
            joined = join(names, shape, entry, [self._part(get, name) for name in entry.ours])
            if self.bits is not None and _is_matrix(entry):
                module = entry.theirs.removesuffix(".weight")
                packed, scale = int4.pack(joined, int4.group_size(shape))
                yield f"{module}.weight_packed", packed
                yield f"{module}.weight_scale", scale if self.dtype == "bfloat16" else scale.to(DTYPES[self.dtype])
            else:
                yield entry.theirs, joined.to(DTYPES[self.dtype])

    def _part(self, get: Get, name: str) -> Tensor:
        value = get(name)
        if not self.family.multiplies:
            value = fold.folded(self.shape, name, value)
        return value if self.bits is None else int4.padded(self.shape, name, value)


def _is_matrix(entry: Entry) -> bool:
    """Whether it is a matrix of a layer: what has 4 bits. Embeddings, norms and biases keep theirs."""
    return is_packed(entry.ours[0])


def is_packed(name: str) -> bool:
    """Whether a parameter of ours is one that `bits` is about."""
    return name.startswith("layers.") and name.endswith(".weight") and "norm" not in name


def conversion(shape: Shape, *, dtype: str, bits: int | None, length: int, end_of_text: int | None) -> Conversion:
    """The conversion of a decoder: into a class of transformers if one expresses it and all bits are kept.

    Raises InputError if its matrices cannot be cut into groups of 4 bits.
    """
    if bits is not None:
        int4.group_size(shape)
    family = family_for(shape) if bits is None else WINNOW
    return Conversion(shape, family, dtype, bits, length, end_of_text)
