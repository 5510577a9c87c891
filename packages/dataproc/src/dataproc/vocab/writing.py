"""A base and its new tokens → the tokenizer with them: new merges after the base's, every old id as it was."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from typing import Any

from tokenizers import Tokenizer

from dataproc.vocab.base import Base
from dataproc.vocab.merges import New
from dataproc.vocab.special import tell_model


def edited(base: Base, new: Sequence[New], special: Sequence[str] = ()) -> Tokenizer:
    """special: tokens that come after all others, with ids of their own unless the base has them.

    The model is told of all tokens beside it (special.py): those between the base's and the new ones would move else.
    """
    content = copy.deepcopy(base.content)
    model: dict[str, Any] = content["model"]
    vocab: dict[str, int] = model["vocab"]
    names = {number: token for token, number in vocab.items()}
    for token in content["added_tokens"]:
        vocab[token["content"]] = token["id"]
    for token in new:
        names[token.id] = base.name(token.data)
        vocab[names[token.id]] = token.id
        if token.right >= 0:
            model["merges"].append([names[token.left], names[token.right]])
    tell_model(content, special)
    return Tokenizer.from_str(json.dumps(content))
