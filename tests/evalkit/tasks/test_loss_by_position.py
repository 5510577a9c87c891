from __future__ import annotations

import numpy as np
import pytest
import torch

from evalkit.buckets import Bucket
from evalkit.intervals import Floats
from evalkit.tasks.loss_by_position import Integers, Sums, curves, document_sums, means, position_nats
from trainer.model.decoder import Decoder, build
from trainer.model.shape import Architecture, Interpolation, Shape

VOCAB, LENGTH = 64, 24


@pytest.fixture(scope="module")
def decoder() -> Decoder:
    kind = Architecture(position="alibi", feedforward="swiglu", norm="layernorm", bias=True, tied=True, init_std=0.5)
    shape = Shape(layers=2, width=16, heads=2, kv_heads=2, head_dim=8, filter=24, vocab_size=VOCAB, architecture=kind)
    return build(shape, seed=3).eval()


@pytest.fixture(scope="module")
def windows_WT() -> Integers:
    return np.random.default_rng(0).integers(0, VOCAB, (5, LENGTH))


def one_by_one(decoder: Decoder, windows_WT: Integers) -> Floats:
    """Every prediction by itself, from its own prefix."""
    found = np.empty((len(windows_WT), windows_WT.shape[1] - 1))
    for row, window in enumerate(windows_WT.tolist()):
        for position in range(1, len(window)):
            with torch.inference_mode():
                logits_V = decoder(torch.tensor([window[:position]]))[0, -1].double()
            found[row, position - 1] = -float(torch.log_softmax(logits_V, 0)[window[position]])
    return found


@pytest.mark.parametrize("batch_tokens", [1, 60, 1000])
def test_nats_are_those_of_predictions_one_by_one(decoder: Decoder, windows_WT: Integers, batch_tokens: int) -> None:
    found = position_nats(decoder, windows_WT, batch_tokens=batch_tokens)
    assert found == pytest.approx(one_by_one(decoder, windows_WT), rel=1e-4)


def test_plain_losses_do_not_depend_on_the_length_of_the_window(decoder: Decoder, windows_WT: Integers) -> None:
    whole = position_nats(decoder, windows_WT, batch_tokens=100)
    half = position_nats(decoder, windows_WT[:, :12], batch_tokens=100)
    assert half == pytest.approx(whole[:, :11], rel=1e-4)


def test_interpolated_losses_are_those_of_slopes_divided_once(decoder: Decoder, windows_WT: Integers) -> None:
    flat = build(decoder.shape, seed=3).eval()
    flat.interpolation = Interpolation(factor=(LENGTH - 1) / 8)
    decoder.interpolation = Interpolation(trained_length=8)
    try:
        found = position_nats(decoder, windows_WT, batch_tokens=100)
    finally:
        decoder.interpolation = None
    assert found == pytest.approx(position_nats(flat, windows_WT, batch_tokens=100), rel=1e-6)
    assert not np.allclose(found, position_nats(decoder, windows_WT, batch_tokens=100), rtol=1e-2)


def test_documents_keep_their_windows_apart() -> None:
    nats_WT = np.arange(12.0).reshape(3, 4)
    sums_NK = document_sums(nats_WT, np.array([0, 1, 1]), [Bucket(first=1, stop=2), Bucket(first=2, stop=5)])
    assert sums_NK.tolist() == [[0, 1 + 2 + 3], [4 + 8, 5 + 6 + 7 + 9 + 10 + 11]]


BUCKETS = (Bucket(first=1, stop=4), Bucket(first=4, stop=8), Bucket(first=8, stop=16))
DOCUMENT_W = np.repeat(np.arange(20), 2)


def summed(losses: tuple[float, ...], *, spread: float, seed: int = 0) -> Sums:
    """Twenty documents of two windows; each document is harder or easier than the mean in all buckets alike."""
    harder_N = np.random.default_rng(seed).normal(0, spread, 20)
    widths = np.array([bucket.width for bucket in BUCKETS[: len(losses)]])
    nats = 2 * widths * (np.array(losses) + harder_N[:, None])
    return Sums("model", BUCKETS[len(losses) - 1].stop, 1.0, 8, nats)


def test_losses_are_means_per_token() -> None:
    (curve,) = curves([summed((5.0, 4.0, 3.5), spread=0)], DOCUMENT_W, BUCKETS)
    assert [loss.value for loss in curve.losses] == pytest.approx([5.0, 4.0, 3.5])
    assert curve.differences == ()


def test_differences_are_paired_over_documents() -> None:
    found = curves([summed((5, 4, 4), spread=1.0), summed((5, 4.1), spread=1.0)], DOCUMENT_W, BUCKETS)
    later = found[1].differences[1]
    assert (later.low, later.value, later.high) == pytest.approx((0.1, 0.1, 0.1))
    assert found[1].losses[1].high - found[1].losses[1].low > 0.5


@pytest.mark.parametrize(("last", "rises_at"), [(3.9, None), (4.0, None), (4.1, 8)])
def test_a_loss_rises_where_it_is_above_that_of_the_last_trained_bucket(last: float, rises_at: int | None) -> None:
    (curve,) = curves([summed((5.0, 4.0, last), spread=1.0)], DOCUMENT_W, BUCKETS)
    assert curve.rises_at == rises_at


def test_documents_with_more_windows_weigh_more() -> None:
    (mean,) = means(np.array([[1.0 * 3], [2.0]]), np.array([3.0, 1.0]))
    assert mean.value == pytest.approx(1.25)


def test_of_few_documents_the_range_stands_in_place_of_an_interval() -> None:
    (mean,) = means(np.array([[1.0], [5.0], [3.0]]), np.ones(3))
    assert (mean.value, mean.low, mean.high) == (3.0, 1.0, 5.0)


def test_an_interval_is_as_wide_as_the_standard_error_says() -> None:
    values = np.random.default_rng(1).normal(0, 1, (400, 1))
    (mean,) = means(values, np.ones(400))
    assert mean.high - mean.low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.1)
