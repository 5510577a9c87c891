"""Exports as transformers loads them in a fresh process: the oracle is the decoder that was exported."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.trainer.huggingface.models import LENGTH, MUP, VOCAB, converted, random_decoder, write
from tests.trainer.model.test_decoder import shape
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor

from dataproc.stage import Draft
from dataproc.vocab.files import END_OF_TEXT, publish
from trainer.huggingface.perplexity import round_to_int4
from trainer.loss import window_losses
from trainer.model.decoder import Decoder
from trainer.model.generate import generate

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaForCausalLM", {"position": "rope", "norm": "rmsnorm", "bias": False, "kv_heads": 2}),
    "llama-biases-mup": ("LlamaForCausalLM", {"position": "rope", "norm": "rmsnorm", "head_dim": 6, "mup": MUP}),
    "phi3-mup": (
        "Phi3ForCausalLM",
        {"position": "rope", "rotary_share": 0.5, "norm": "rmsnorm", "bias": False, "mup": MUP, "tied": False},
    ),
    # 30/44 · 44 is less than 30 in floating point.
    "stablelm-mup": (
        "StableLmForCausalLM",
        {"position": "rope", "rotary_share": 0.69, "bias": False, "mup": MUP, "heads": 2, "kv_heads": 1}
        | {"head_dim": 44, "width": 88},
    ),
    "stablelm-untied-mup": (
        "StableLmForCausalLM",
        {"position": "rope", "rotary_share": 0.25, "bias": False, "mup": MUP, "tied": False},
    ),
    "starcoder2": ("Starcoder2ForCausalLM", {"position": "rope", "feedforward": "gelu", "kv_heads": 2, "mup": MUP}),
    "neox-mup": ("GPTNeoXForCausalLM", {"position": "rope", "rotary_share": 0.5, "feedforward": "gelu", "mup": MUP}),
    "gpt2-mup": (
        "GPT2LMHeadModel",
        {"position": "learned", "max_positions": LENGTH, "feedforward": "gelu", "mup": MUP},
    ),
    "btlm": ("JAISLMHeadModel", {"position": "alibi", "mup": MUP}),
    "btlm-interpolated": (
        "WinnowForCausalLM",
        {"position": "alibi", "mup": MUP, "heads": 3, "head_dim": 8, "kv_heads": 1}
        | {"interpolation": {"trained_length": 7}},
    ),
    "crystal": ("WinnowForCausalLM", {"position": "rope", "rotary_share": 0.5, "mup": MUP}),
    "learned": (
        "WinnowForCausalLM",
        {"position": "learned", "max_positions": LENGTH, "tied": False, "norm": "rmsnorm", "bias": False},
    ),
}
TEXT = "Plain words, «guillemets», 12 ☃\n    and   spaces;  Done."
PROMPTS = [[5, 7, 11], [8, 2, 9, 4, 1], [3]]


def prompts() -> dict[str, Tensor]:
    longest = max(map(len, PROMPTS))
    padded = torch.tensor([[*[0] * (longest - len(row)), *row] for row in PROMPTS])
    mask = torch.tensor([[*[0] * (longest - len(row)), *[1] * len(row)] for row in PROMPTS])
    tokens = torch.randint(0, VOCAB, (2, 17), generator=torch.Generator().manual_seed(0))
    text = torch.tensor(list(TEXT.encode()), dtype=torch.uint8)
    return {"tokens": tokens, "padded": padded, "mask": mask, "text": text}


def train_tokenizer(directory: Path) -> Tokenizer:
    """A byte-level one, as a mixture has, with its files."""
    directory.mkdir()
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=[END_OF_TEXT], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([TEXT * 3, "more words and more spaces"], trainer)
    publish(tokenizer, (), draft=Draft(directory))
    return tokenizer


def decoder_of(case: str) -> Decoder:
    return random_decoder(shape(**({"mup": None, "filter": 44} | CASES[case][1])))


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All exports, whole and in 4 bits, loaded by one process that sees nothing of Winnow."""
    root = tmp_path_factory.mktemp("exports")
    train_tokenizer(root / "tokenizer")
    for case in CASES:
        decoder = decoder_of(case)
        for bits, name in ((None, case), (4, f"{case}-4bit")):
            write(root / name, decoder, converted(decoder, bits=bits))
            save_file(prompts(), root / name / "prompts.safetensors")
            (root / name / "generation_config.json").write_text('{"eos_token_id": 0}')
            for file in (root / "tokenizer").glob("*.json"):
                shutil.copy(file, root / name)
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"HF_HUB_OFFLINE": "1"}
    environment["HF_MODULES_CACHE"] = str(root / "modules")
    script = Path(__file__).with_name("load_exports.py")
    subprocess.run([sys.executable, script, root], check=True, env=environment, cwd=root, timeout=240)
    return root


def found(loaded: Path, name: str) -> dict[str, Tensor]:
    return load_file(loaded / name / "found.safetensors")


@pytest.mark.parametrize("case", CASES)
def test_an_export_has_the_logits_of_the_decoder(loaded: Path, case: str) -> None:
    decoder = decoder_of(case)
    assert converted(decoder).architecture == CASES[case][0]
    with torch.no_grad():
        expected = decoder(prompts()["tokens"])[..., :VOCAB]
    got = found(loaded, case)
    assert int(got["vocab"]) == VOCAB
    torch.testing.assert_close(got["whole"], expected, atol=1e-5, rtol=1e-5)
    if decoder.interpolation is None:
        torch.testing.assert_close(got["stepwise"], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_a_text_has_the_tokens_of_the_mixture_whatever_the_class_of_the_model(loaded: Path, case: str) -> None:
    expected = Tokenizer.from_file(str(loaded / "tokenizer" / "tokenizer.json")).encode(TEXT).ids
    got = found(loaded, case)
    assert got["tokens"].tolist() == expected
    assert got["ends"].tolist() == [0, 0]


@pytest.mark.parametrize("case", CASES)
def test_it_goes_on_as_the_decoder_does_from_prompts_padded_on_the_left(loaded: Path, case: str) -> None:
    decoder = decoder_of(case)
    expected = [generate(decoder, [prompt], most=5)[0] for prompt in PROMPTS]
    if decoder.interpolation is not None:  # a dynamic scale goes by the length with the padding
        expected = generate(decoder, PROMPTS, most=5)
    assert found(loaded, case)["generated"].tolist() == expected


@pytest.mark.parametrize("case", CASES)
def test_four_bits_have_the_logits_of_the_weights_that_they_stand_for(loaded: Path, case: str) -> None:
    decoder = decoder_of(case)
    whole_bytes = sum(4 * parameter.numel() for parameter in decoder.parameters())
    round_to_int4(decoder)
    with torch.no_grad():
        expected = decoder(prompts()["tokens"])[..., :VOCAB]
    got = found(loaded, f"{case}-4bit")
    torch.testing.assert_close(got["whole"], expected, atol=1e-5, rtol=1e-5)
    assert int(got["bytes"]) < 0.45 * whole_bytes  # packed also once it has run


def test_the_modelling_file_has_the_loss_of_the_trainer(loaded: Path) -> None:
    tokens = prompts()["tokens"]
    with torch.no_grad():
        logits = decoder_of("btlm")(tokens)[:, 2:-1, :VOCAB]
    expected = window_losses(logits, tokens[:, 3:]).sum() / tokens[:, 3:].numel()
    torch.testing.assert_close(found(loaded, "btlm")["loss"], expected)
