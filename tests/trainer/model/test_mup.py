"""BTLM's published numbers are the oracle (papers: muP constants of BTLM-3B-8K)."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from trainer.model import mup
from trainer.model.decoder import Decoder, build
from trainer.model.mup import Role
from trainer.model.shape import Architecture, Mup, Shape


def btlm(*, with_mup: bool = True, **changes: int) -> Shape:
    constants = Mup(base_width=256, base_filter=682.6, embedding=14.6, logits=2.22, init_std=0.073)
    architecture = Architecture(
        position="alibi",
        feedforward="swiglu",
        norm="layernorm",
        bias=True,
        tied=True,
        mup=constants if with_mup else None,
    )
    sizes: dict[str, Any] = {"layers": 32, "width": 2560, "heads": 32, "filter": 6826, "vocab_size": 50257}
    sizes |= changes
    return Shape(**sizes, kv_heads=sizes["heads"], head_dim=sizes["width"] // sizes["heads"], architecture=architecture)


@pytest.mark.parametrize(
    ("role", "std"),
    [
        (Role.EMBEDDING, 0.073),
        (Role.HIDDEN, 0.0230846),
        (Role.ATTENTION_OUTPUT, 0.00288558),
        (Role.FEEDFORWARD_OUTPUT, 0.00288558),
    ],
)
def test_the_initial_deviations_are_those_published_for_btlm(role: Role, std: float) -> None:
    assert mup.init_std(btlm(), role) == pytest.approx(std, rel=1e-5)


def test_the_multipliers_are_those_published_for_btlm() -> None:
    shape = btlm()
    assert mup.embedding_multiplier(shape) == 14.6
    assert mup.logits_multiplier(shape) == pytest.approx(0.222)
    assert mup.attention_scale(shape) == 1 / 80
    assert mup.learning_rate_multiplier(shape, Role.HIDDEN) == pytest.approx(0.1)
    assert mup.learning_rate_multiplier(shape, Role.FEEDFORWARD_OUTPUT) == pytest.approx(0.1, rel=1e-3)
    assert mup.learning_rate_multiplier(shape, Role.EMBEDDING) == 1.0


def test_a_rounded_filter_has_a_multiplier_of_its_own() -> None:
    shape = btlm(width=128, heads=4, filter=1024)
    assert mup.learning_rate_multiplier(shape, Role.ATTENTION_OUTPUT) == 2.0
    assert mup.learning_rate_multiplier(shape, Role.FEEDFORWARD_OUTPUT) == pytest.approx(682.6 / 1024)


def test_without_mup_all_rates_are_equal_and_scores_are_divided_by_the_root() -> None:
    shape = btlm(with_mup=False)
    assert {mup.learning_rate_multiplier(shape, role) for role in Role} == {1.0}
    assert mup.attention_scale(shape) == pytest.approx(80**-0.5)


def test_weights_are_normal_within_two_deviations() -> None:
    shape = btlm(layers=2, width=128, heads=4, filter=512, vocab_size=1000)
    for name, parameter in build(shape, seed=0).named_parameters():
        role = mup.role_of(name)
        if role in (Role.GAIN, Role.BIAS):
            assert torch.equal(parameter, torch.full_like(parameter, float(role is Role.GAIN)))
            continue
        std = mup.init_std(shape, role)
        # A normal cut at two deviations keeps 0.8796 of its deviation.
        assert float(parameter.detach().std()) == pytest.approx(0.8796 * std, rel=0.03)
        assert float(parameter.detach().abs().max()) <= 2 * std


def test_logits_are_the_scaled_states_times_the_tied_embedding() -> None:
    shape = btlm(layers=1, width=32, heads=2, filter=64, vocab_size=50)
    decoder = build(shape, seed=0)
    states: list[torch.Tensor] = []
    decoder.final_norm.register_forward_hook(lambda module, inputs, output: states.append(output))
    logits = decoder(torch.randint(0, 50, (2, 5)))
    expected = 2.22 / (32 / 256) * states[0] @ decoder.embedding.weight.T
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)


def test_every_parameter_of_a_decoder_has_the_role_of_its_kind() -> None:
    with torch.device("meta"):
        decoder = Decoder(btlm(layers=1))
    matrices = {name: mup.role_of(name) for name, parameter in decoder.named_parameters() if parameter.dim() == 2}
    assert matrices == {
        "embedding.weight": Role.EMBEDDING,
        "layers.0.attention.query.weight": Role.HIDDEN,
        "layers.0.attention.key.weight": Role.HIDDEN,
        "layers.0.attention.value.weight": Role.HIDDEN,
        "layers.0.attention.output.weight": Role.ATTENTION_OUTPUT,
        "layers.0.feedforward.gate.weight": Role.HIDDEN,
        "layers.0.feedforward.up.weight": Role.HIDDEN,
        "layers.0.feedforward.down.weight": Role.FEEDFORWARD_OUTPUT,
    }
    vectors = {mup.role_of(name) for name, parameter in decoder.named_parameters() if parameter.dim() == 1}
    assert vectors == {Role.GAIN, Role.BIAS}
