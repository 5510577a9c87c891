"""FLOPs of what is trained, against torch's own count of a decoder's products."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from trainer.flops import flops_per_token
from trainer.memory import STATUS, peak_bytes, reset_peak
from trainer.model.adapters import adapt
from trainer.model.decoder import build
from trainer.model.shape import Architecture, Shape
from trainer.trainable import Trainable

SEQ_LEN, ROWS = 32, 2


def shape(*, tied: bool) -> Shape:
    architecture = {"position": "rope", "feedforward": "swiglu", "norm": "rmsnorm", "bias": False, "tied": tied}
    return Shape(
        layers=4,
        width=64,
        heads=4,
        kv_heads=4,
        head_dim=16,
        filter=160,
        vocab_size=256,
        architecture=Architecture.model_validate(architecture),
    )


def counted(of: Shape, trainable: Trainable) -> float:
    """Per token, without attention's products of queries, keys and values, which torch counts by kernel."""
    decoder = build(of, seed=0)
    adapt(decoder, trainable, of, seed=0)
    tokens = torch.zeros(ROWS, SEQ_LEN, dtype=torch.long)
    with FlopCounterMode(display=False) as counter:
        decoder(tokens).sum().backward()
    products = ("mm", "addmm", "mm.default")
    total = sum(flops for name, flops in counter.get_flop_counts()["Global"].items() if str(name).endswith(products))
    return total / (ROWS * SEQ_LEN)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(
    "trainable",
    [
        "all",
        "embeddings",
        {"pattern": "layers.2.attention.*"},
        {"pattern": ["layers.3.*", "final_norm.*"]},
        {"lora": {"rank": 8, "alpha": 8}},
        {"lora": {"rank": 8, "alpha": 8, "targets": "layers.3.*"}},
    ],
)
def test_flops_are_those_of_the_products_that_are_made(trainable: Any, tied: bool) -> None:
    of, what = shape(tied=tied), Trainable.model_validate(trainable)
    attention = flops_per_token(of, what, SEQ_LEN) - flops_per_token(of, what, 0)
    low = 3 if "layers.3" in str(trainable) else 2 if "layers.2" in str(trainable) else 0
    assert attention == pytest.approx((2 + 4 * (4 - low) / 4) * 4 * 64 * SEQ_LEN)
    assert flops_per_token(of, what, 0) == pytest.approx(counted(of, what), rel=0.05)


def test_flops_of_all_are_those_of_the_shape() -> None:
    of = shape(tied=True)
    assert flops_per_token(of, Trainable(named="all"), 100) == pytest.approx(of.flops_per_token(100))


@pytest.mark.skipif(not STATUS.is_file(), reason="only Linux measures a peak anew")
def test_the_peak_of_memory_can_be_measured_anew() -> None:
    held = torch.ones(64 * 2**20)  # 256 MB
    high = peak_bytes()
    del held
    reset_peak()
    assert peak_bytes() < high - 200 * 10**6
