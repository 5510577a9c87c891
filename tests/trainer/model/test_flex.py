"""Flex attention against SDPA: the same numbers, with and without documents."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from tests.trainer.model.kinds import KINDS
from tests.trainer.model.test_decoder import shape

from trainer.model import mup
from trainer.model.decoder import Decoder


def pair(kind: dict[str, Any], device: str = "cpu") -> tuple[Decoder, Decoder]:
    wanted = shape(**({"head_dim": 16} | kind))
    sdpa, flex = Decoder(wanted), Decoder(wanted, attention="flex")
    mup.initialise(sdpa, wanted, 3)
    flex.load_state_dict(sdpa.state_dict())
    return sdpa.to(device), flex.to(device)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("documents", [False, True])
def test_both_ways_give_the_same_logits(kind: dict[str, Any], documents: bool) -> None:
    sdpa, flex = pair(kind)
    tokens = torch.randint(0, 61, (2, 24), generator=torch.Generator().manual_seed(0))
    within = torch.tensor([[0] * 9 + [1] * 15, [0] * 1 + [1] * 23]) if documents else None
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is not compiled on a CPU
        torch.testing.assert_close(flex(tokens, within), sdpa(tokens, within), atol=1e-5, rtol=1e-5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("kind", KINDS)
def test_both_ways_give_the_same_gradients(kind: dict[str, Any]) -> None:
    tokens = torch.randint(0, 61, (2, 128), generator=torch.Generator().manual_seed(0)).cuda()
    within = (torch.arange(128, device="cuda") // 50).expand(2, -1)
    limits = {"max_positions": 128} if kind["position"] == "learned" else {}
    models = pair(kind | limits, "cuda")
    for model in models:
        model(tokens, within).square().mean().backward()
    for first, second in zip(*(model.parameters() for model in models), strict=True):
        torch.testing.assert_close(first.grad, second.grad, atol=1e-4, rtol=1e-3)
