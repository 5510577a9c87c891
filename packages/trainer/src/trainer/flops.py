"""The FLOPs of a training step where only a part is trained: what MFU counts (peak.py)."""

from __future__ import annotations

import math

from trainer.model.parameters import TABLES
from trainer.model.shape import Shape
from trainer.trainable import Trainable, rows_name, trained


def flops_per_token(shape: Shape, trainable: Trainable, seq_len: int) -> float:
    """Training FLOPs per token of a phase. `all`: those of Shape.flops_per_token.

    A product of N parameters takes 2N forward, 2N for the gradient of its inputs and 2N for that of its weights (Kaplan
    et al., 2020, section 2.1, counts the last two as 4N). A frozen one takes no more than 4N, and 2N below the lowest
    layer in which anything is trained, where nothing needs a gradient, and for the queries, keys and values of that
    layer, whose inputs need none unless the embedding is trained. LoRA's own matrices take 6N as all that is
    trained. Of attention's 6 · layers · heads · head_dim · seq_len a third is forward, and the rest goes as deep as
    gradients do.
    """
    sizes = {name: math.prod(size) for name, size in trained(trainable, shape).items()}
    head = "embedding" if shape.architecture.tied else "unembedding"
    layers, tables = shape.layers * shape.layer_parameters, shape.padded_vocab * shape.width
    low = 0 if _INPUTS & sizes.keys() else _lowest(set(sizes), shape.layers)
    bottom = shape.width * (shape.heads + 2 * shape.kv_heads) * shape.head_dim
    ends = bottom if low < shape.layers and not _INPUTS & sizes.keys() else 0
    reached = (shape.layers - low) / shape.layers
    own = {name: size for name, size in sizes.items() if name.startswith("layers.")}
    own |= {name: sizes[name] for name in (f"{head}.weight", rows_name(f"{head}.weight")) if name in sizes}
    beside = sum(own.values()) if trainable.lora is not None else 0
    attention = 2.0 * shape.layers * shape.heads * shape.head_dim * seq_len
    forward = 2.0 * (layers + tables + beside) + attention
    backward = 2.0 * (layers * reached - ends + tables + beside) + 2.0 * attention * reached
    return forward + backward + 2.0 * sum(own.values())


_INPUTS = {TABLES[0], rows_name(TABLES[0]), "position_embedding.weight"}
"""What the lowest layer reads from: gradients go down to it if one of these is trained."""


def _lowest(names: set[str], layers: int) -> int:
    """The lowest layer of which something is trained."""
    return min((int(name.split(".")[1]) for name in names if name.startswith("layers.")), default=layers)
