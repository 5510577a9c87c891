"""Special tokens: ids that no text encodes to, with a meaning of their own."""

from __future__ import annotations

from collections.abc import Sequence

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


def add_special(tokenizer: Tokenizer, special: str | Sequence[str]) -> None:
    """Adds special tokens after the vocabulary, in their order; those that it has already keep their ids.

    Raises RecipeError if one of them is an ordinary token, which text encodes to.
    """
    known = tokenizer.get_vocab(with_added_tokens=False)
    for name in names_of(special):
        if name in known and name not in {token.content for token in tokenizer.get_added_tokens_decoder().values()}:
            raise RecipeError(f"tokenizer.special: {name!r} is an ordinary token of this vocabulary; take another name")
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in names_of(special)])


def fim_tokens(tokenizer: Tokenizer) -> FimTokens | None:
    """The ids of the tokens for fill-in-the-middle, under one of their usual spellings; None if one is missing."""
    for spelling in ("<|{}|>", "<{}>"):
        prefix, middle, suffix, pad = (tokenizer.token_to_id(spelling.format(name)) for name in FIM)
        if prefix is not None and middle is not None and suffix is not None and pad is not None:
            return FimTokens(prefix=prefix, middle=middle, suffix=suffix, pad=pad)
    return None
