"""Decoders with random weights, gains and biases, and what an export of one writes."""

from __future__ import annotations

import json
import shutil
from itertools import product
from pathlib import Path
from typing import Any

import torch
from tests.trainer.model.test_decoder import shape
from torch import Tensor

import trainer.huggingface
from trainer.huggingface.convert import Conversion, conversion
from trainer.huggingface.weights import write_weights
from trainer.huggingface.winnow import MODELLING_FILE
from trainer.model.decoder import Decoder, build
from trainer.model.shape import Mup, Shape

VOCAB, LENGTH = 61, 40
MUP = Mup(base_width=24, base_filter=64, embedding=10.0, logits=1.5, init_std=0.05)

POSITIONS: list[dict[str, Any]] = [
    {"position": "alibi"},
    {"position": "rope"},
    {"position": "rope", "rotary_share": 0.5},
    {"position": "learned", "max_positions": LENGTH},
]


def every_shape() -> list[Shape]:
    """All switches against each other; the filter is no multiple of a group of 4-bit weights."""
    return [
        shape(**position, feedforward=feedforward, norm=norm, bias=bias, tied=tied, mup=mup, kv_heads=kv, filter=44)
        for position, feedforward, norm, bias, tied, mup, kv in product(
            POSITIONS, ("swiglu", "gelu"), ("layernorm", "rmsnorm"), (True, False), (True, False), (MUP, None), (4, 2)
        )
    ]


def random_decoder(wanted: Shape, seed: int = 1) -> Decoder:
    decoder = build(wanted, seed=seed).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
    return decoder


def converted(decoder: Decoder, *, bits: int | None = None, dtype: str = "float32") -> Conversion:
    return conversion(decoder.shape, dtype=dtype, bits=bits, length=LENGTH, end_of_text=0)


def tensors(decoder: Decoder, made: Conversion) -> dict[str, Tensor]:
    weights = {name: parameter.detach() for name, parameter in decoder.named_parameters()}
    return dict(made.tensors(weights.__getitem__))


def write(directory: Path, decoder: Decoder, made: Conversion) -> None:
    """The part of an export that is a model."""
    directory.mkdir(parents=True)
    write_weights(directory, tensors(decoder, made).items())
    (directory / "config.json").write_text(json.dumps(made.config()))
    if made.family.multiplies:
        shutil.copy(Path(trainer.huggingface.__file__).with_name(MODELLING_FILE), directory)
