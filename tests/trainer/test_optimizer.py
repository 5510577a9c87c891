from __future__ import annotations

import torch

from trainer.model.decoder import Decoder
from trainer.model.shape import Architecture, Mup, Shape
from trainer.optimizer import parameter_groups
from trainer.recipe import OptimizerRecipe


def test_each_parameter_is_in_one_group_with_its_rate_and_decay() -> None:
    mup = Mup(base_width=16, base_filter=20, embedding=10.0, logits=1.5, init_std=0.05)
    architecture = Architecture(position="alibi", feedforward="gelu", norm="layernorm", bias=True, tied=False, mup=mup)
    shape = Shape(
        layers=2, width=32, heads=2, kv_heads=2, head_dim=16, filter=80, vocab_size=64, architecture=architecture
    )
    with torch.device("meta"):
        decoder = Decoder(shape)
    groups = parameter_groups(decoder, shape, OptimizerRecipe(weight_decay=0.3))
    assert {group["name"]: (group["lr_multiplier"], group["weight_decay"]) for group in groups} == {
        "hidden": (0.5, 0.3),
        "feedforward_output": (0.25, 0.3),
        "embedding": (1.0, 0.3),
        "norms_and_biases": (1.0, 0.0),
    }
    grouped = [parameter for group in groups for parameter in group["params"]]
    assert len(grouped) == len({id(parameter) for parameter in grouped}) == len(list(decoder.parameters()))
    assert all(parameter.dim() == 1 for parameter in groups[3]["params"])
