from __future__ import annotations

import pytest
import torch

from trainer.model.decoder import Decoder
from trainer.model.parameters import count, parameter_sizes
from trainer.model.shape import Architecture, Shape


@pytest.mark.parametrize(
    "kind",
    [
        {"position": "alibi", "feedforward": "swiglu", "norm": "layernorm", "bias": True, "tied": True},
        {"position": "rope", "feedforward": "swiglu", "norm": "rmsnorm", "bias": False, "tied": False},
        {"position": "learned", "feedforward": "gelu", "norm": "layernorm", "bias": True, "tied": False},
    ],
)
def test_names_and_shapes_are_those_of_the_decoder(kind: dict[str, object]) -> None:
    limit = {"max_positions": 32} if kind["position"] == "learned" else {}
    architecture = Architecture.model_validate(kind | limit)
    shape = Shape(
        layers=2, width=24, heads=4, kv_heads=2, head_dim=8, filter=40, vocab_size=70, architecture=architecture
    )
    with torch.device("meta"):
        decoder = Decoder(shape)
    sizes = parameter_sizes(shape)
    assert list(sizes.items()) == [(name, tuple(held.shape)) for name, held in decoder.named_parameters()]
    assert count(sizes) == shape.parameters
