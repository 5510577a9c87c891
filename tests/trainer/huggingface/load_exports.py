"""Run as a program of its own, in which nothing of Winnow is loaded: exports → what transformers makes of them.

argv: a directory with an export per subdirectory, and prompts.safetensors in each. Writes found.safetensors beside it.
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer


def logits(model, **inputs):
    with torch.no_grad():
        return model(**inputs).logits


def stepwise(model, tokens):
    """Logits with a cache, token by token."""
    past, found = None, []
    for column in tokens.split(1, dim=1):
        with torch.no_grad():
            out = model(input_ids=column, past_key_values=past, use_cache=True)
        past, found = out.past_key_values, [*found, out.logits]
    return torch.cat(found, dim=1)


for directory in sorted(path.parent for path in Path(sys.argv[1]).glob("*/config.json")):
    ours = (directory / "modeling_winnow.py").is_file()
    config = AutoConfig.from_pretrained(directory, trust_remote_code=ours)
    model, said = AutoModelForCausalLM.from_pretrained(directory, trust_remote_code=ours, output_loading_info=True)
    assert not any(said.values()), (directory.name, said)
    given = load_file(directory / "prompts.safetensors")
    found = {"whole": logits(model, input_ids=given["tokens"]), "stepwise": stepwise(model, given["tokens"])}
    mask = given["mask"]
    options = {"max_new_tokens": 5, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    found["generated"] = model.generate(given["padded"], attention_mask=mask, **options)[:, -5:].contiguous()
    if ours:
        labels = given["tokens"].clone()
        labels[:, :3] = -100
        with torch.no_grad():
            found["loss"] = model(input_ids=given["tokens"], labels=labels).loss
    held = [*model.parameters(), *model.buffers()]
    found["bytes"] = torch.tensor(sum(tensor.numel() * tensor.element_size() for tensor in held))
    tokenizer = AutoTokenizer.from_pretrained(directory, trust_remote_code=ours)
    text = bytes(given["text"].tolist()).decode()
    found["tokens"] = torch.tensor(tokenizer(text)["input_ids"])
    assert tokenizer.decode(found["tokens"]) == text
    found["ends"] = torch.tensor([tokenizer.eos_token_id, model.generation_config.eos_token_id])
    found["vocab"] = torch.tensor(config.vocab_size)
    save_file(found, directory / "found.safetensors")
assert "trainer" not in sys.modules
