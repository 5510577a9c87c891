"""A decoder that reads each token once: the oracle is the same decoder over the whole row."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.trainer.model.kinds import KINDS
from tests.trainer.model.test_decoder import shape

from manifest.errors import InputError
from trainer.model.cache import Cache
from trainer.model.decoder import Decoder, build
from trainer.model.generate import generate
from trainer.model.shape import Interpolation


def decoder_of(kind: dict[str, Any]) -> Decoder:
    """One whose biases and gains differ, so that a confusion of them shows."""
    decoder = build(shape(**kind), seed=1).eval()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
    return decoder


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pieces", [(12,), (1,) * 12, (7, 1, 1, 3), (1, 5, 6)])
def test_tokens_read_in_pieces_give_the_logits_of_the_whole_row(kind: dict[str, Any], pieces: tuple[int, ...]) -> None:
    decoder = decoder_of(kind)
    tokens = torch.randint(0, 61, (2, 12), generator=torch.Generator().manual_seed(0))
    cache = Cache(decoder.shape, 2, 12)
    with torch.no_grad():
        found = torch.cat([decoder(piece, cache=cache) for piece in tokens.split(pieces, dim=1)], dim=1)
        torch.testing.assert_close(found, decoder(tokens), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_prompt_goes_on_as_if_it_were_alone(kind: dict[str, Any]) -> None:
    decoder = decoder_of(kind)
    prompts = [[5, 7, 11], [3], [8, 2, 9, 4, 1, 60, 33], [1, 2]]
    together = generate(decoder, prompts, most=6)
    assert together == [naively(decoder, prompt, 6) for prompt in prompts]
    assert all(token < 61 for row in together for token in row)


def naively(decoder: Decoder, prompt: list[int], most: int) -> list[int]:
    row = list(prompt)
    for _ in range(most):
        with torch.no_grad():
            row.append(int(decoder(torch.tensor([row]))[0, -1, :61].argmax()))
    return row[len(prompt) :]


def test_a_dynamic_scale_follows_the_length_that_has_been_read() -> None:
    decoder = decoder_of({"interpolation": {"trained_length": 4}})
    assert generate(decoder, [[3, 9, 27]], most=8)[0] == naively(decoder, [3, 9, 27], 8)


def test_rows_end_at_a_stop_token_and_the_others_go_on() -> None:
    decoder = decoder_of({"position": "rope"})
    prompts = [[5, 7, 11], [3], [8, 2, 9]]
    free = generate(decoder, prompts, most=8)
    stop = free[0][2]
    stopped = generate(decoder, prompts, most=8, stop={stop})
    assert stopped == [row[: row.index(stop)] if stop in row else row for row in free]
    assert any(stop not in row for row in free) or len({len(row) for row in stopped}) > 1


def test_a_draw_depends_on_the_seed_and_its_own_row_alone() -> None:
    decoder = decoder_of({"position": "alibi"})
    options: dict[str, Any] = {"most": 8, "temperature": 1.5}
    alone = generate(decoder, [[5, 7]], seed=1, **options)
    assert generate(decoder, [[5, 7], [1, 2, 3]], seed=1, **options)[:1] == alone
    assert generate(decoder, [[5, 7]], seed=2, **options) != alone
    assert generate(decoder, [[5, 7]], seed=1, top_p=1e-9, **options) == generate(decoder, [[5, 7]], most=8)


def test_draws_follow_the_softmax() -> None:
    decoder = decoder_of({"position": "alibi", "mup": None})
    with torch.no_grad():
        expected = torch.softmax(decoder(torch.tensor([[5, 7]]))[0, -1, :61] / 0.8, dim=-1)
    drawn = generate(decoder, [[5, 7]] * 4000, most=1, temperature=0.8)
    found = torch.bincount(torch.tensor([row[0] for row in drawn]), minlength=61) / 4000
    assert float((found - expected).abs().max()) < 4 * float((expected * (1 - expected) / 4000).sqrt().max())


def test_more_tokens_than_learned_positions_is_an_error() -> None:
    decoder = decoder_of({"position": "learned", "max_positions": 6})
    assert len(generate(decoder, [[1, 2, 3]], most=4)[0]) == 4  # the last one is not read
    with pytest.raises(InputError, match="7 tokens in a row, and the model has learned 6 positions"):
        generate(decoder, [[1, 2, 3]], most=5)
    with pytest.raises(InputError, match="learned 6 positions"):
        decoder(torch.zeros(1, 7, dtype=torch.int64))


def test_interpolation_divides_the_slopes_and_can_be_set_later() -> None:
    plain, halved = (decoder_of({"position": "alibi", "heads": 1, "kv_heads": 1, "head_dim": 32}) for _ in range(2))
    halved.interpolation = Interpolation(factor=2.0)
    tokens = torch.randint(0, 61, (1, 12))
    with torch.no_grad():
        before = plain(tokens)
        assert not torch.allclose(halved(tokens), before)
        plain.interpolation = Interpolation(trained_length=6)  # 12 tokens are twice as many
        torch.testing.assert_close(plain(tokens), halved(tokens))
        plain.interpolation = Interpolation(trained_length=12)
        torch.testing.assert_close(plain(tokens), before, atol=0, rtol=0)


def test_generating_amid_training_leaves_the_gradients_as_they_are() -> None:
    tokens = torch.randint(0, 61, (1, 4))
    gradients = []
    for first in (False, True):
        decoder = build(shape(position="rope"), seed=0)
        if first:
            generate(decoder, [[1, 2, 3, 4]], most=2)
            with torch.inference_mode():
                decoder(tokens)
        decoder(tokens).square().mean().backward()
        gradients.append(decoder.layers[0].attention.query.weight.grad)
    torch.testing.assert_close(*gradients, atol=0, rtol=0)
