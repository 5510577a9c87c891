"""Special tokens: ids that no text encodes to, with a meaning of their own."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from tokenizers import AddedToken, Tokenizer

from manifest.errors import RecipeError
from manifest.mixture import FimTokens

FIM = ("fim_prefix", "fim_middle", "fim_suffix", "fim_pad")
CODE = (
    *("filename", "gh_stars", "issue_start", "issue_comment", "issue_closed", "jupyter_start", "jupyter_text"),
    *("jupyter_code", "jupyter_output", "empty_output", "commit_before", "commit_msg", "commit_after", "reponame"),
)
CHAT = ("im_start", "im_end", "sys_start", "sys_end")
SETS = {"fim": FIM, "crystal": (*FIM, *CODE, *CHAT)}
"""crystal: the 22 of Crystal, in their order, as its release spells them (LLM360/Crystal, tokenizer_config.json)."""


def names_of(special: str | Sequence[str]) -> tuple[str, ...]:
    """The tokens of a set, or those that are named."""
    return tuple(f"<|{name}|>" for name in SETS[special]) if isinstance(special, str) else tuple(special)


def with_special(tokenizer: Tokenizer, special: str | Sequence[str]) -> Tokenizer:
    """The tokenizer with special tokens after its largest id, in their order; those that it has already keep their ids.

    Raises RecipeError if one of them is an ordinary token, which text encodes to.
    """
    names = names_of(special)
    known = tokenizer.get_vocab(with_added_tokens=True)
    beside = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    for name in names:
        if name in known and name not in beside:
            raise RecipeError(f"tokenizer.special: {name!r} is an ordinary token of this vocabulary; take another name")
    has_holes = len(set(known.values())) <= max(known.values())
    if has_holes and not set(names) <= known.keys():
        content: dict[str, Any] = json.loads(tokenizer.to_str())
        if isinstance(content["model"]["vocab"], dict):
            tell_model(content, names)
            tokenizer = Tokenizer.from_str(json.dumps(content))
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in names])
    return tokenizer


def tell_model(content: dict[str, Any], names: Sequence[str]) -> None:
    """Adds special tokens to a tokenizer.json whose model has a vocabulary by name, after its largest id.

    `tokenizers` numbers added tokens by the count of the model's unless the model knows them, so the model is told of
    each: where ids have holes, a new token would take the id of another, and old ones would move.
    """
    vocab: dict[str, int] = content["model"]["vocab"]
    known = {token["content"]: token["id"] for token in content["added_tokens"]}
    vocab |= known
    for name in names:
        if name in vocab and name not in known:
            raise RecipeError(f"tokenizer.special: {name!r} is an ordinary token of this vocabulary; take another name")
        if name not in known:
            vocab[name] = max(vocab.values()) + 1
            flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
            content["added_tokens"].append({"id": vocab[name], "content": name, **flags, "special": True})


def fim_tokens(tokenizer: Tokenizer) -> FimTokens | None:
    """The ids of the tokens for fill-in-the-middle, under one of their usual spellings; None if one is missing."""
    for spelling in ("<|{}|>", "<{}>"):
        prefix, middle, suffix, pad = (tokenizer.token_to_id(spelling.format(name)) for name in FIM)
        if prefix is not None and middle is not None and suffix is not None and pad is not None:
            return FimTokens(prefix=prefix, middle=middle, suffix=suffix, pad=pad)
    return None
