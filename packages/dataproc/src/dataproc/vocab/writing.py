"""A base and its new tokens → the tokenizer with them: new merges after the base's, every old id as it was."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from typing import Any

from tokenizers import Tokenizer

from dataproc.vocab.base import Base
from dataproc.vocab.merges import New
from manifest.errors import RecipeError


def edited(base: Base, new: Sequence[New], special: Sequence[str] = ()) -> Tokenizer:
    """special: tokens that come after all others, with ids of their own unless the base has them.

    `tokenizers` numbers added tokens by the count of the model's unless the model knows them, so the model is told of
    each: ids that have holes, or of added tokens between the base's and the new ones, would move otherwise.
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
    known = {token["content"] for token in content["added_tokens"]}
    for name in special:
        if name in vocab and name not in known:
            raise RecipeError(f"tokenizer.special: {name!r} is an ordinary token of this vocabulary; take another name")
        if name not in known:
            vocab[name] = max(vocab.values()) + 1
            flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
            content["added_tokens"].append({"id": vocab[name], "content": name, **flags, "special": True})
    return Tokenizer.from_str(json.dumps(content))
