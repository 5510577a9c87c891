"""Positions and blocks as transformers' own models compute them."""

from __future__ import annotations

import pytest
import torch
from tests.trainer.model.test_decoder import shape
from transformers import MptConfig, MptForCausalLM
from transformers.models.bloom.modeling_bloom import build_alibi_tensor

from trainer.model.decoder import Decoder
from trainer.model.positions import alibi_bias

MPT_NAMES = {
    "transformer.wte": "embedding",
    "transformer.blocks": "layers",
    "transformer.norm_f": "final_norm",
    "norm_1": "attention_norm",
    "norm_2": "feedforward_norm",
    "attn.out_proj": "attention.output",
    "ffn.up_proj": "feedforward.up",
    "ffn.down_proj": "feedforward.down",
}


@pytest.mark.parametrize("heads", [4, 3])
def test_alibi_gelu_and_layernorm_give_the_logits_of_mpt(heads: int) -> None:
    width = 8 * heads
    torch.manual_seed(0)
    mpt = MptForCausalLM(MptConfig(d_model=width, n_heads=heads, n_layers=2, vocab_size=64)).eval()
    wanted = shape(feedforward="gelu", bias=False, mup=None, width=width, heads=heads, kv_heads=heads, vocab_size=64)
    ours = Decoder(wanted.model_copy(update={"filter": 4 * width}))
    with torch.no_grad():
        for parameter in (*mpt.parameters(), *ours.parameters()):
            parameter.copy_(torch.randn_like(parameter) * 0.3 if parameter.dim() == 2 else torch.zeros_like(parameter))
        for name, value in mpt.named_parameters():
            if value.dim() == 1:
                value.copy_(torch.rand_like(value) + 0.5)
            for theirs, renamed in MPT_NAMES.items():
                name = name.replace(theirs, renamed)
            if name.endswith("Wqkv.weight"):
                for part, rows in zip(("query", "key", "value"), value.chunk(3), strict=True):
                    ours.get_parameter(name.replace("attn.Wqkv", f"attention.{part}")).copy_(rows)
            else:  # a norm of MPT has no bias: ours stays 0
                ours.get_parameter(name).copy_(value)
        tokens = torch.randint(0, 64, (2, 23))
        torch.testing.assert_close(ours(tokens), mpt(tokens).logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("heads", [1, 4, 12])
def test_the_bias_is_that_of_bloom_but_for_what_softmax_does_not_see(heads: int) -> None:
    length = 9
    theirs_HT = build_alibi_tensor(torch.ones(1, length), heads, torch.float32).view(heads, length)
    ours_HTT = alibi_bias(heads, length)[0]
    for query in range(length):
        shift = ours_HTT[:, query, : query + 1] - theirs_HT[:, : query + 1]
        torch.testing.assert_close(shift, shift[:, :1].expand_as(shift), atol=1e-5, rtol=1e-5)
