"""Which Hugging Face class expresses a decoder, and its config.json in both ways.

    Llama       RoPE, SwiGLU, RMSNorm; biases or not, any head size           Mistral is read as one
    Phi-3       partial RoPE, SwiGLU, RMSNorm, no biases
    StableLM    full or partial RoPE, SwiGLU, LayerNorm, no biases
    StarCoder2  RoPE, GELU, LayerNorm; biases or not
    GPT-NeoX    partial RoPE, GELU, LayerNorm, biases
    GPT-2       learned positions, GELU, LayerNorm, biases, tied
    Winnow      everything: one file beside the weights (modeling_winnow.py); Jais, BTLM, CrystalCoder are read as one

All but the last have no multipliers, so muP's must be folded into the weights before (`fold.py`).
"""

from __future__ import annotations

from manifest.errors import InputError
from trainer.huggingface.family import Family
from trainer.huggingface.gpt import GPT2, GPT_NEOX
from trainer.huggingface.llama import LLAMA, PHI3, STABLELM, STARCODER2
from trainer.huggingface.settings import Settings
from trainer.huggingface.winnow import WINNOW
from trainer.model.shape import Shape

FAMILIES = (LLAMA, PHI3, STABLELM, STARCODER2, GPT_NEOX, GPT2, WINNOW)


def family_for(shape: Shape) -> Family:
    """The first family that expresses a decoder: a class of transformers if there is one."""
    return next(family for family in FAMILIES if family.expresses(shape))


def family_of(settings: Settings) -> Family:
    """The family of a config.json. Raises InputError if it is none of them."""
    kind = settings.text("model_type")
    for family in FAMILIES:
        if kind in family.kinds:
            return family
    known = ", ".join(kind for family in FAMILIES for kind in family.kinds)
    raise InputError(f"{settings.file}: model_type is {kind!r}; Winnow's decoder can be one of {known}")
