"""Rows for new tokens, against closed forms."""

from __future__ import annotations

import numpy as np
import torch

from trainer.model import grow
from trainer.model.decoder import build
from trainer.model.shape import Architecture, Shape

GENERATOR = torch.Generator().manual_seed(0)


def table(rows: int, width: int = 6) -> torch.Tensor:
    return torch.randn(rows, width, generator=GENERATOR)


def test_a_grown_table_has_the_old_rows_bit_for_bit_and_zeros_where_there_is_no_token() -> None:
    old, new = table(10), table(3)
    grown = grow.with_rows(old, torch.tensor([12, 4, 13]), new, padded=16)
    kept = [n for n in range(10) if n != 4]
    assert torch.equal(grown[kept], old[kept])
    assert torch.equal(grown[[12, 4, 13]], new)
    assert not grown[[10, 11, 14, 15]].any()


def test_growing_changes_no_logit_of_an_old_token_by_a_bit() -> None:
    architecture = Architecture(position="rope", feedforward="swiglu", norm="rmsnorm", bias=False, tied=False)
    shape = Shape(
        layers=2, width=32, heads=4, kv_heads=2, head_dim=8, filter=48, vocab_size=100, architecture=architecture
    )
    old, grown = build(shape, seed=0), build(shape.model_copy(update={"vocab_size": 200}), seed=1)
    weights = old.state_dict()
    ids = torch.arange(100, 200)
    for name in ("embedding.weight", "unembedding.weight"):
        weights[name] = grow.with_rows(weights[name], ids, table(100, 32), grown.shape.padded_vocab)
    grown.load_state_dict(weights)
    tokens = torch.randint(0, 100, (3, 17), generator=GENERATOR)
    with torch.no_grad():
        assert torch.equal(grown(tokens)[..., :100], old(tokens)[..., :100])


def test_means_are_of_the_pieces_or_of_all_old_rows() -> None:
    old = table(9)
    mean = grow.mean_of_all(old, [0, 1, 2, 5])
    torch.testing.assert_close(mean, (old[0] + old[1] + old[2] + old[5]) / 4)
    found = grow.mean_of_pieces(old, [(3, 4), (5, 5, 8), ()], mean)
    torch.testing.assert_close(found, torch.stack([(old[3] + old[4]) / 2, (2 * old[5] + old[8]) / 3, mean]))


def test_likeness_weighs_the_nearest_by_their_cosines() -> None:
    old, auxiliary = table(4), torch.tensor([[1.0, 0.0], [0.6, 0.8], [-1.0, 0.0], [0.0, 2.0]])
    new = torch.tensor([[3.0, 0.0], [0.0, -1.0]])
    neighbours = grow.nearest(new, auxiliary, [7, 8, 9, 11], count=2)
    assert neighbours.ids[0].tolist() == [7, 8]
    torch.testing.assert_close(neighbours.weights[0], torch.tensor([1.0, 0.6], dtype=torch.float64) / 1.6)
    # Nothing is like the second: its nearest are at a right angle or beyond, and weigh the same.
    assert neighbours.weights[1].tolist() == [0.5, 0.5]
    wide = torch.zeros(12, 6)
    wide[[7, 8, 9, 11]] = old
    torch.testing.assert_close(grow.weighted(wide, neighbours)[0], (old[0] + 0.6 * old[1]) / 1.6)


def test_more_neighbours_than_old_tokens_are_all_of_them() -> None:
    assert grow.nearest(table(2), table(3), [0, 1, 2], count=5).ids.shape == (2, 3)


def test_a_projection_finds_the_map_between_two_tables() -> None:
    theirs, matrix = table(40, 5), table(5, 6)
    fitted = grow.fit_projection(theirs, theirs @ matrix)
    assert fitted.explained > 1 - 1e-9
    fresh = table(3, 5)
    torch.testing.assert_close(grow.projected(fresh, fitted), fresh @ matrix, atol=1e-4, rtol=1e-4)


def test_a_projection_is_the_least_squares_of_numpy() -> None:
    theirs, ours = table(30, 5), table(30, 6)
    fitted = grow.fit_projection(theirs, ours)
    expected, rest, *_ = np.linalg.lstsq(theirs.double().numpy(), ours.double().numpy(), rcond=None)
    np.testing.assert_allclose(fitted.matrix.numpy(), expected, atol=1e-10)
    spread = ((ours - ours.mean(0)).double() ** 2).sum()
    np.testing.assert_allclose(fitted.explained, 1 - rest.sum() / float(spread))


def test_random_rows_are_keyed_by_seed_and_table_and_as_wide_as_a_fresh_decoders() -> None:
    rows = grow.random(400, 50, std=0.02, seed=3, name="embedding.weight")
    assert torch.equal(rows, grow.random(400, 50, std=0.02, seed=3, name="embedding.weight"))
    assert not torch.equal(rows, grow.random(400, 50, std=0.02, seed=3, name="unembedding.weight"))
    assert not torch.equal(rows, grow.random(400, 50, std=0.02, seed=4, name="embedding.weight"))
    assert float(rows.abs().max()) <= 0.04
    assert 0.016 < float(rows.std()) < 0.019  # a normal that is cut at two standard deviations has 0.88 of its own
