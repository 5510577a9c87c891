from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM

from evalkit.scorer import Model, document_bits, windows
from trainer.model.decoder import build
from trainer.model.shape import Architecture, Shape

END, VOCAB = 0, 64


def documents(*lengths: int) -> list[list[int]]:
    rng = np.random.default_rng(sum(lengths))
    return [rng.integers(1, VOCAB, length).tolist() for length in lengths]


@pytest.fixture(scope="module")
def decoder() -> Model:
    kind = Architecture(position="alibi", feedforward="swiglu", norm="layernorm", bias=True, tied=True, init_std=0.5)
    shape = Shape(layers=2, width=16, heads=2, kv_heads=2, head_dim=8, filter=24, vocab_size=VOCAB, architecture=kind)
    return build(shape, seed=3).eval()


@pytest.fixture(scope="module")
def llama() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCAB, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=64, initializer_range=0.5,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def loop(model: Model, tokens: list[int], window: int) -> float:
    """One token at a time, without batches: its window's tokens up to it, and no padding."""
    sequence, bits = [END, *tokens], 0.0
    for place in range(1, len(sequence)):
        first = (place - 1) // (window - 1) * (window - 1)
        with torch.inference_mode():
            logits_V = model(torch.tensor([sequence[first:place]]))[0, -1]
        bits -= float(torch.log_softmax(logits_V.double(), 0)[sequence[place]]) / math.log(2)
    return bits


def test_bits_are_those_of_a_loop_over_single_tokens(decoder: Model) -> None:
    found = documents(1, 7, 8, 9, 30, 0)
    bits_N = document_bits(decoder, found, end_of_text=END, window=8, batch_tokens=64)
    assert bits_N == pytest.approx([loop(decoder, tokens, 8) for tokens in found], rel=1e-5)


def test_bits_are_those_of_llamas_own_loss(llama: LlamaForCausalLM) -> None:
    found = documents(5, 16, 40)

    def llama_bits(tokens: list[int]) -> float:
        sequence, nats = torch.tensor([[END, *tokens]]), 0.0
        for first in range(0, len(tokens), 15):
            part = sequence[:, first : first + 16]
            with torch.inference_mode():
                nats += float(llama(input_ids=part, labels=part).loss) * (part.shape[1] - 1)
        return nats / math.log(2)

    bits_N = document_bits(lambda t: llama(t).logits, found, end_of_text=END, window=16, batch_tokens=96)
    assert bits_N == pytest.approx([llama_bits(tokens) for tokens in found], rel=1e-5)


@pytest.mark.parametrize("batch_tokens", [1, 20, 500])
def test_bits_do_not_depend_on_the_batch(decoder: Model, batch_tokens: int) -> None:
    found = documents(3, 25, 1, 12, 12, 31)
    bits_N = document_bits(decoder, found, end_of_text=END, window=10, batch_tokens=batch_tokens)
    alone = [document_bits(decoder, [d], end_of_text=END, window=10, batch_tokens=10)[0] for d in found]
    assert bits_N == pytest.approx(alone, rel=1e-5)


def test_a_uniform_model_needs_log2_of_the_vocabulary_per_token() -> None:
    bits_N = document_bits(
        lambda t: torch.zeros(*t.shape, VOCAB), documents(0, 1, 50), end_of_text=END, window=16, batch_tokens=32
    )
    assert bits_N == pytest.approx([0, 6, 300], rel=1e-6)


@given(st.lists(st.integers(1, 9), max_size=40), st.integers(2, 12))
def test_windows_predict_every_token_once_and_in_order(tokens: list[int], window: int) -> None:
    found = list(windows([tokens], END, window))
    assert [token for w in found for token in w.tokens[1:]] == tokens
    assert all(2 <= len(w.tokens) <= window for w in found)
    assert [w.tokens[0] for w in found] == [END, *tokens][:: window - 1][: len(found)]
