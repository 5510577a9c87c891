"""The base's tokenizer against the mixture's: the same, or grown by new tokens, or not the model's at all.

    base   {the: 12, Ø: 40, § : 41 …}                        pieces: the base's ids that stood for a new token
    mixture {the: 12, Ø: 40, § : 41 …, Ø§: 32000}  ─►  new: 32000 ← (40, 41)

A mixture may follow a model if every token of the model keeps its id and text is cut as before. Tokens may also take
the ids of others that were given up for them (`tokenizer: {replace: …}`), if the tokenizer says so itself.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from manifest.added import ADDED, Added, vocabulary_digest
from manifest.artifact import Opened
from manifest.errors import InputError, WrongArtifact
from manifest.mixture import Mixture
from trainer.adapt.base import Base
from trainer.tokenizer import FILE, find_tokenizer

SPACE = "▁"
SHOWN = 3


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer. `content` is its tokenizer.json as `tokenizers` writes it."""

    tokenizer: Tokenizer
    content: Mapping[str, Any]

    @cached_property
    def ids(self) -> dict[str, int]:
        """token → id, added ones too."""
        return dict(self.tokenizer.get_vocab(with_added_tokens=True))

    @cached_property
    def beside(self) -> frozenset[int]:
        """The ids of tokens that stand beside the model, such as the end of text."""
        return frozenset(token["id"] for token in self.content["added_tokens"])

    @cached_property
    def merges(self) -> list[tuple[str, str]]:
        return [(left, right) for left, right in self.content["model"].get("merges") or []]

    @cached_property
    def bytes_of(self) -> dict[int, bytes]:
        """id → what an ordinary token stands for, however its make of tokenizer writes that.

        A token of byte fallback is left out where another stands for its byte, for no text is written with it.
        """
        steps = json.dumps([self.content["pre_tokenizer"], self.content["decoder"]])
        letters = _letters() if '"ByteLevel"' in steps else {}
        ordinary = {token: number for token, number in self.ids.items() if number not in self.beside}
        fallback = {} if letters else {token: _fallback(token) for token in ordinary if _fallback(token)}
        found = {number: _bytes(token, letters) for token, number in ordinary.items() if token not in fallback}
        written = set(found.values())
        return found | {ordinary[token]: byte for token, byte in fallback.items() if byte not in written}

    def text(self, number: int, token: str) -> str:
        """A token for people."""
        return self.bytes_of[number].decode("utf-8", "replace") if number in self.bytes_of else token


@dataclass(frozen=True)
class NewRow:
    """A row that begins anew. pieces: the base's ids that stood for its token; none where it could not write it."""

    id: int
    token: str
    pieces: tuple[int, ...]


@dataclass(frozen=True)
class Growth:
    """base, grown: the two vocabularies. rows: in order of id. replaced: those of their ids that other tokens had."""

    base: Vocabulary
    grown: Vocabulary
    rows: tuple[NewRow, ...]
    replaced: frozenset[int]

    @property
    def texts(self) -> dict[int, str]:
        """The new tokens by id, for people."""
        return {row.id: self.grown.text(row.id, row.token) for row in self.rows}

    @property
    def kept(self) -> list[int]:
        """The ids that mean what they did."""
        return sorted(set(self.base.ids.values()) - self.replaced)


def read_vocabulary(file: Path) -> Vocabulary:
    """Raises InputError if a tokenizer.json cannot be loaded."""
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:
        raise InputError(f"{file} cannot be loaded ({error}); expected a Hugging Face tokenizer.json") from error
    return Vocabulary(tokenizer, json.loads(tokenizer.to_str()))


def growth_between(base: Base, mixture: Opened) -> Growth | None:
    """What the mixture's tokenizer has beyond the base's; None if it has nothing.

    Raises WrongArtifact if it is not the base's and no extension of it, InputError if there is none to compare.
    """
    record = mixture.manifest
    assert isinstance(record, Mixture)
    if base.tokenizer_digest() == record.tokenizer.digest:
        return None
    own = read_vocabulary(base.tokenizer())
    found = find_tokenizer(mixture, why="was made with a tokenizer that must be the model's,", advice="Restore it")
    other = read_vocabulary(found.directory / FILE)
    said = f"mixture {record.name} was made with a tokenizer ({found.uri}) that is not the one of {base.uri}"
    added = _added(found.directory, own)
    replaced = frozenset() if added is None else frozenset(token.id for token in added.replaced)
    _require_same_ids(own, other, replaced, said)
    _require_same_cuts(own, other, bool(replaced), said)
    rows = tuple(_rows(own, other, replaced, added))
    return Growth(own, other, rows, replaced) if rows else None


ADVICE = (
    "Build the mixture with `tokenizer: {path: …}` of the model's directory, or extend that (`dataproc build --base`)"
)


def _require_same_ids(own: Vocabulary, other: Vocabulary, replaced: frozenset[int], said: str) -> None:
    there = {number: token for token, number in other.ids.items()}
    lost = [(token, n) for token, n in sorted(own.ids.items(), key=lambda item: item[1]) if there.get(n) != token]
    wrong = [(token, number) for token, number in lost if number not in replaced]
    if wrong:
        shown = ", ".join(f"{token!r} was {number}, {_now(other, token)}" for token, number in wrong[:SHOWN])
        raise WrongArtifact(
            f"{said}: {len(wrong):,} of its {len(own.ids):,} tokens have no such id ({shown}). {ADVICE}"
        )


def _now(other: Vocabulary, token: str) -> str:
    return f"there {other.ids[token]}" if token in other.ids else "there none"


def _require_same_cuts(own: Vocabulary, other: Vocabulary, replaced: bool, said: str) -> None:
    """The same steps before the merges, and the same merges, before which no others come."""
    for step in ("normalizer", "pre_tokenizer"):
        if own.content[step] != other.content[step]:
            raise WrongArtifact(
                f"{said}: its {step} is {_short(own.content[step])}, there it is {_short(other.content[step])}, so "
                f"text is cut otherwise. {ADVICE}"
            )
    mine, there = own.content["model"], other.content["model"]
    for key in sorted((mine.keys() | there.keys()) - {"vocab", "merges"}):
        if mine.get(key) != there.get(key):
            raise WrongArtifact(
                f"{said}: {key} of its model is {mine.get(key)!r}, there {there.get(key)!r}, so text is cut otherwise. "
                f"{ADVICE}"
            )
    first = other.merges[: len(own.merges)]
    if not replaced and first != own.merges:
        differing = next((i for i, (a, b) in enumerate(zip(own.merges, first, strict=False)) if a != b), len(first))
        raise WrongArtifact(f"{said}: its merge {differing + 1} is another there, so text is cut otherwise. {ADVICE}")
    scores = mine["vocab"] if isinstance(mine["vocab"], list) else []  # of a Unigram
    if scores and scores != there["vocab"][: len(scores)]:
        raise WrongArtifact(f"{said}: its tokens have other scores there, so text is cut otherwise. {ADVICE}")


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 120 else text[:117] + "…"


def _added(directory: Path, own: Vocabulary) -> Added | None:
    """What a tokenizer says of its new tokens, if the base is the one that it was made from."""
    file = directory / ADDED
    if not file.is_file():
        return None
    added = Added.model_validate_json(file.read_text(encoding="utf-8"))
    return added if added.base == vocabulary_digest(own.ids) else None


def _rows(own: Vocabulary, other: Vocabulary, replaced: frozenset[int], added: Added | None) -> list[NewRow]:
    known = set(own.ids.values()) - replaced
    written = {} if added is None else {token.id: token.pieces for token in added.tokens}
    names = sorted((number, token) for token, number in other.ids.items() if number not in known)
    return [
        NewRow(number, token, written.get(number) or _pieces(own, other, number, token, replaced))
        for number, token in names
    ]


def _pieces(own: Vocabulary, other: Vocabulary, number: int, token: str, replaced: frozenset[int]) -> tuple[int, ...]:
    """The base's ids for a token; for one beside the model, for its spelling."""
    if number in other.beside:
        found = list(own.tokenizer.encode(token, add_special_tokens=False).ids)
    else:
        found = [piece.id for piece in own.tokenizer.model.tokenize(token)]
    return tuple(piece for piece in found if piece not in replaced)


def _letters() -> dict[str, int]:
    """The character by which byte-level tokenizers write each byte (GPT-2's table)."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(0x100 + i): byte for i, byte in enumerate(others)}


def _bytes(token: str, letters: Mapping[str, int]) -> bytes:
    if letters and set(token) <= letters.keys():
        return bytes(letters[letter] for letter in token)
    return token.replace(SPACE, " ").encode()


def _fallback(token: str) -> bytes:
    """The byte of a token of byte fallback, such as <0xD8>; empty for another token."""
    match = re.fullmatch(r"<0x([0-9A-F]{2})>", token)
    return bytes.fromhex(match[1]) if match else b""
