"""README.md of an export: what the model is, where it comes from and how it is loaded."""

from __future__ import annotations

from manifest.identity import short
from trainer.huggingface.convert import Conversion
from trainer.huggingface.source import Source
from trainer.huggingface.winnow import MODELLING_FILE

_HEADER = """---
library_name: transformers
pipeline_tag: text-generation
tags: [winnow]
---
"""


def card(source: Source, made: Conversion, *, mixture: str | None, weight_bytes: int, tokenizer: bool) -> str:
    """The page. mixture: the mixture's name, if it is known. weight_bytes: of all tensors as they are stored."""
    record, shape = source.record, source.shape
    lines = [
        f"# {record.name}",
        "",
        f"A decoder of {shape.parameters:,} parameters, after {record.step:,} steps ({record.tokens:,} tokens) of run "
        f"`{record.run}`" + (f" over mixture `{mixture}`" if mixture else "") + f"; checkpoint `{short(record.id)}`.",
        "",
        "```python",
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        "",
        f"model = AutoModelForCausalLM.from_pretrained(PATH{_trust(made)})",
        *([f"tokenizer = AutoTokenizer.from_pretrained(PATH{_trust(made)})"] if tokenizer else []),
        "```",
        "",
        *(f"- {line}" for line in _facts(source, made, weight_bytes)),
        "",
    ]
    return _HEADER + "\n".join(lines)


def _trust(made: Conversion) -> str:
    return ", trust_remote_code=True" if made.family.multiplies else ""


def _facts(source: Source, made: Conversion, weight_bytes: int) -> list[str]:
    shape = source.shape
    facts = [
        f"Class: `{made.architecture}`"
        + (f", with its code in `{MODELLING_FILE}`." if made.family.multiplies else ", of transformers itself."),
        f"Vocabulary: {shape.vocab_size:,} tokens"
        + (f"; {more} rows of padding were cut." if (more := shape.padded_vocab - shape.vocab_size) else "."),
        f"Trained on windows of up to {source.length:,} tokens.",
        f"Weights: {made.dtype}, {weight_bytes / 1e6:,.1f} MB.",
    ]
    if shape.architecture.mup is not None:
        where = "stand in config.json" if made.family.multiplies else "are folded into the weights"
        facts.append(f"muP's multipliers {where}.")
    if made.bits is not None:
        size = made.config()["weight_group"]
        facts.append(
            f"Matrices have {made.bits} bits per weight and a scale per {size} inputs; embeddings, norms and biases "
            "have all of theirs. They stay packed in memory; a matrix is unpacked when it is used."
        )
    return facts
