"""Operations whose gradients are written out, against torch's own."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from trainer import loss
from trainer.loss import window_losses
from trainer.model.norm import RMSNorm
from trainer.model.positions import rotary_tables, rotate


def random(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def gradients(out: Tensor, *of: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(out, of, random(*out.shape))


def test_the_gradient_of_an_rms_norm_is_torchs() -> None:
    norm, x = RMSNorm(24, eps=1e-5), random(3, 5, 24).requires_grad_()
    with torch.no_grad():
        norm.weight.copy_(random(24))
    expected = functional.rms_norm(x, (24,), norm.weight, 1e-5)
    torch.testing.assert_close(norm(x), expected)
    for found, wanted in zip(gradients(norm(x), x, norm.weight), gradients(expected, x, norm.weight), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rotary_dims", [16, 8])
def test_the_gradient_of_a_rotation_is_that_of_its_formula(rotary_dims: int) -> None:
    cos_QR, sin_QR = rotary_tables(rotary_dims, 1e4, 7)
    x = random(2, 7, 3, 16).transpose(1, 2).requires_grad_()
    low, high, rest = x.split([rotary_dims // 2, rotary_dims // 2, 16 - rotary_dims], dim=-1)
    cos, sin = (table[:, : rotary_dims // 2] for table in (cos_QR, sin_QR))
    expected = torch.cat([low * cos - high * sin, high * cos + low * sin, rest], dim=-1)
    found = rotate(x, cos_QR, sin_QR)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(gradients(found, x), gradients(expected, x))


@pytest.mark.parametrize("at_once", [1, 40, 1000])  # a row in a block, some, all
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_loss_and_its_gradient_are_those_of_the_cross_entropy(
    dtype: torch.dtype, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loss, "CPU_BLOCK", at_once)
    logits, targets = (3 * random(2, 5, 11)).to(dtype).requires_grad_(), torch.arange(10).view(2, 5)
    weights = torch.tensor([[1.0, 0.0, 1.0, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0, 0.0]])
    each = functional.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), reduction="none").view(2, 5)
    expected, found = (each * weights).sum(dim=1), window_losses(logits, targets, weights)
    torch.testing.assert_close(found, expected)
    alike = [torch.autograd.grad(losses.sum(), logits, retain_graph=True)[0] for losses in (found, expected)]
    torch.testing.assert_close(*alike)  # a sum has the gradient as it was made
    torch.testing.assert_close(gradients(found, logits), gradients(expected, logits))
