"""A base tokenizer that is to be extended: what its tokens stand for, as bytes, and how it cuts text.

Two makes of BPE are read: byte-level (GPT-2, Llama 3), in which every byte is a token, and characters with byte
fallback (Llama 2), in which `▁` is a space and characters without a token are `<0xD8>`, `<0xA7>`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, pre_tokenizers

from dataproc.vocab.files import load, size_of
from manifest.errors import RecipeError

SPACE = "▁"
FALLBACK = tuple(f"<0x{byte:02X}>" for byte in range(256))
_RUN = re.compile(f"{SPACE}*[^{SPACE}]+|{SPACE}+")
_ENDS_INSIDE = re.compile(f"[^{SPACE}]{SPACE}")


def byte_alphabet() -> dict[str, int]:
    """The character by which byte-level tokenizers write each byte (GPT-2's table)."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in plain]
    found = {chr(byte): byte for byte in plain} | {chr(0x100 + i): byte for i, byte in enumerate(others)}
    assert set(found) == set(pre_tokenizers.ByteLevel.alphabet())
    return found


ALPHABET = byte_alphabet()
LETTERS = {byte: letter for letter, byte in ALPHABET.items()}


@dataclass(frozen=True)
class Base:
    """`content` is its tokenizer.json. All tokens, added ones too, are in `vocab`."""

    content: dict[str, Any]
    tokenizer: Tokenizer
    byte_level: bool

    @cached_property
    def vocab(self) -> dict[str, int]:
        return dict(self.tokenizer.get_vocab(with_added_tokens=True))

    @cached_property
    def added(self) -> frozenset[int]:
        """The ids of tokens that stand beside the model, such as the end of text."""
        return frozenset(token["id"] for token in self.content["added_tokens"])

    @property
    def size(self) -> int:
        return size_of(self.tokenizer)

    @cached_property
    def bytes_of(self) -> dict[int, bytes]:
        """The bytes that each ordinary token stands for, without bytes of fallback and tokens that are no text."""
        found = {}
        for token, number in self.vocab.items():
            if number not in self.added and (data := self._bytes(token)) is not None:
                found[number] = data
        return found

    @cached_property
    def fallback(self) -> dict[int, int]:
        """id → byte, of the tokens of byte fallback."""
        return {} if self.byte_level else {self.vocab[token]: byte for byte, token in enumerate(FALLBACK)}

    def name(self, data: bytes) -> str:
        """How a token for these bytes is written in the vocabulary."""
        if self.byte_level:
            return "".join(LETTERS[byte] for byte in data)
        return data.decode().replace(" ", SPACE)

    def pieces(self, text: str) -> Iterator[str]:
        """The parts of a text within which tokens are merged, as `segment` takes them."""
        whole = self.tokenizer.normalizer.normalize_str(text) if self.tokenizer.normalizer else text
        found = [whole]
        if self.tokenizer.pre_tokenizer:
            found = [piece for piece, _ in self.tokenizer.pre_tokenizer.pre_tokenize_str(whole)]
        for piece in found:
            yield from _RUN.findall(piece) if self._cuts_at_spaces else (piece,)

    def text_of(self, piece: str) -> str:
        """The text of a piece."""
        if self.byte_level:
            return bytes(ALPHABET[letter] for letter in piece).decode("utf-8", "replace")
        return piece.replace(SPACE, " ")

    def segment(self, piece: str) -> list[int]:
        """The ids of a piece."""
        return [token.id for token in self.tokenizer.model.tokenize(piece)]

    @cached_property
    def _cuts_at_spaces(self) -> bool:
        """Whether no token goes over the beginning of a word, so that a text's words are encoded each for itself."""
        return not self.byte_level and not any(_ENDS_INSIDE.search(token) for token in self.content["model"]["vocab"])

    def _bytes(self, token: str) -> bytes | None:
        if self.byte_level:
            return bytes(ALPHABET[letter] for letter in token) if set(token) <= ALPHABET.keys() else None
        return None if token in FALLBACK or " " in token else token.replace(SPACE, " ").encode()


def read_base(path: Path, where: str) -> Base:
    """A base from its directory or file. Raises RecipeError, naming the field `where`, if it cannot be extended."""
    tokenizer = load(path)
    content: dict[str, Any] = json.loads(tokenizer.to_str())
    model = content["model"]
    said = f"{where}: the tokenizer in {path} "
    if model["type"] != "BPE":
        raise RecipeError(
            f"{said}is a {model['type']}; only BPE can be extended, for it has merges by which new tokens come about. "
            "Take a BPE, or train a tokenizer on both languages (tokenizer.train)"
        )
    for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(key):
            raise RecipeError(f"{said}has {key} {model[key]!r}, which extension does not know; expected none")
    vocab = model["vocab"].keys()
    byte_level = _has_byte_level(content["pre_tokenizer"]) and ALPHABET.keys() <= vocab
    if not byte_level and not (model["byte_fallback"] and set(FALLBACK) <= vocab):
        raise RecipeError(
            f"{said}has no token for some bytes (it is not byte-level, and lacks byte fallback with <0x00> … <0xFF>), "
            f"so characters that it does not know would be lost as {model['unk_token'] or 'nothing'}; take another"
        )
    return Base(content, tokenizer, byte_level)


def _has_byte_level(part: Any) -> bool:
    if isinstance(part, dict):
        return part.get("type") == "ByteLevel" or any(_has_byte_level(inner) for inner in part.values())
    return isinstance(part, list) and any(_has_byte_level(inner) for inner in part)
