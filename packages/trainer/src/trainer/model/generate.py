"""Prompts → what a decoder continues them with, each token read once (`cache.py`).

    prompts of different lengths      · · 5 8      padded on the left, where nobody looks
                                      7 2 9 4  ─►  3 1 6 ⏹

Shapes: B prompts, V rows of the embedding.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from manifest.identity import hash64
from trainer.model.cache import Cache
from trainer.model.decoder import Decoder


@torch.inference_mode()
def generate(
    decoder: Decoder,
    prompts: Sequence[Sequence[int]],
    *,
    most: int,
    stop: Collection[int] = (),
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
) -> list[list[int]]:
    """At most `most` new tokens for each prompt, up to and without the first of `stop`.

    temperature 0 takes the likeliest token; else one is drawn among the likeliest whose probabilities reach `top_p`.
    A prompt's draws are keyed (seed, its number, how many tokens it has), so they do not depend on the others.
    Raises InputError if prompt and continuation are longer than a decoder that learns its positions knows.
    """
    assert all(prompts), "an empty prompt predicts nothing; begin with end_of_text"
    device = decoder.embedding.weight.device
    longest = max(map(len, prompts))
    tokens_BT = torch.tensor([[*[0] * (longest - len(prompt)), *prompt] for prompt in prompts], device=device)
    starts_B = torch.tensor([longest - len(prompt) for prompt in prompts], device=device)
    cache = Cache(
        decoder.shape,
        len(prompts),
        longest + most,
        starts_B=starts_B if bool(starts_B.any()) else None,
        device=device,
        dtype=decoder.embedding.weight.dtype,
    )
    found: list[list[int]] = [[] for _ in prompts]
    alive = list(range(len(prompts)))
    for _ in range(most):
        logits_BV = decoder(tokens_BT, cache=cache)[:, -1, : decoder.shape.vocab_size].float()
        chosen = [
            _choose(logits_V, temperature, top_p, key=f"{seed}|{row}|{len(found[row])}")
            for logits_V, row in zip(logits_BV, alive, strict=True)
        ]
        going = [index for index, token in enumerate(chosen) if token not in stop]
        for index in going:
            found[alive[index]].append(chosen[index])
        if not going:
            break
        if len(going) < len(alive):
            cache.keep(torch.tensor(going, device=device))
        alive = [alive[index] for index in going]
        tokens_BT = torch.tensor([[chosen[index]] for index in going], device=device)
    return found


def _choose(logits_V: Tensor, temperature: float, top_p: float, *, key: str) -> int:
    if temperature == 0:
        return int(logits_V.argmax())
    ranked_V, ids_V = torch.softmax(logits_V / temperature, dim=-1).cpu().sort(descending=True, stable=True)
    # Those whose betters do not reach top_p yet: at least one.
    kept = ranked_V[(ranked_V.cumsum(0) - ranked_V) < top_p]
    generator = torch.Generator().manual_seed(hash64(f"winnow generate 1|{key}") >> 1)
    return int(ids_V[torch.multinomial(kept, 1, generator=generator)])
