"""Documents of one window that do not see each other: the oracle is the same model over each document alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.trainer.model.test_decoder import shape

from trainer.loss import window_losses
from trainer.model.decoder import build

KINDS: list[dict[str, Any]] = [
    {"position": "alibi"},
    {"position": "alibi", "heads": 3, "kv_heads": 3},
    {"position": "rope"},
    {"position": "rope", "rotary_share": 0.5, "kv_heads": 2},
    {"position": "rope", "mup": None, "norm": "rmsnorm", "bias": False, "tied": False},
]
LENGTHS = [5, 1, 9, 6]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("recompute", [False, True])
def test_each_document_of_a_window_is_computed_as_if_it_were_alone(kind: dict[str, Any], recompute: bool) -> None:
    decoder = build(shape(**kind), seed=1, recompute=recompute)
    torch.manual_seed(0)
    tokens = torch.randint(0, 61, (2, sum(LENGTHS)))
    documents = torch.tensor([[i for i, n in enumerate(LENGTHS) for _ in range(n)], [0] * sum(LENGTHS)])
    found = decoder(tokens, documents)
    first = 0
    for length in LENGTHS:
        alone = decoder(tokens[:1, first : first + length])
        torch.testing.assert_close(found[:1, first : first + length], alone, atol=1e-5, rtol=1e-5)
        losses = (
            window_losses(x[:, :-1], tokens[:1, first + 1 : first + length])
            for x in (found[:1, first : first + length], alone)
        )
        torch.testing.assert_close(*losses, atol=1e-5, rtol=1e-5)
        first += length
    torch.testing.assert_close(found[1:], decoder(tokens[1:]), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_no_gradient_crosses_from_one_document_to_another(kind: dict[str, Any]) -> None:
    decoder = build(shape(**kind), seed=1)
    tokens = torch.arange(10)[None]
    documents = torch.tensor([[0] * 4 + [1] * 6])
    decoder(tokens, documents)[:, 4:].square().sum().backward()
    assert decoder.embedding.weight.grad is not None
    if not decoder.shape.architecture.tied:
        assert decoder.embedding.weight.grad[:4].abs().sum() == 0
    assert decoder.embedding.weight.grad.isfinite().all()
    changed = tokens.clone()
    changed[0, :4] += 20
    torch.testing.assert_close(decoder(changed, documents)[:, 4:], decoder(tokens, documents)[:, 4:], atol=0, rtol=0)
    assert not torch.allclose(decoder(changed)[:, 4:], decoder(tokens)[:, 4:])
