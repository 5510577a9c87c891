"""Rows of windows: which tokens are learned, and of which document each of them is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from manifest.artifact import Opened
from manifest.corpus import PADDING, TokenStream
from manifest.errors import RecipeError
from manifest.identity import hash64
from manifest.indexed import ShardWriter, open_shard, token_dtype
from manifest.mixture import View
from manifest.pack import pack
from manifest.packed import PackedStream
from manifest.store import LocalStore
from trainer.data.views import Reader, Reading
from trainer.data.windows import Window
from trainer.fit import FitOptions, plan_run
from trainer.launch import Workers
from trainer.sizes import resolve

END, SEQ_LEN = 0, 8
LENGTHS = [5, 3, 11, 1, 6, 7, 4]


@dataclass(frozen=True)
class Token:
    """A token of the streams below, its document and whether it is part of an answer."""

    document: str
    number: int
    answer: bool


@pytest.fixture
def tokens() -> dict[int, Token]:
    """Documents of tokens of their own, every second of them of an answer."""
    found: dict[int, Token] = {}
    for index, length in enumerate(LENGTHS):
        found |= {20 * (index + 1) + t: Token(f"d{index}", t, t % 2 == 1) for t in range(length)}
    return found


@pytest.fixture
def reader(tmp_path: Path, tokens: dict[int, Token]) -> Reader:
    """Reads `plain`, and `packed` in windows of SEQ_LEN."""
    with ShardWriter(tmp_path / "s", token_dtype(500), masked=True) as writer:
        for name in sorted({token.document for token in tokens.values()}, key=lambda d: (hash64(d), d)):
            own = [(number, token) for number, token in tokens.items() if token.document == name]
            writer.add(name, [number for number, _ in own], [token.answer for _, token in own])
    stream = TokenStream([open_shard(tmp_path / "s", masked=True)], 2 * SEQ_LEN)
    packed = PackedStream(stream, pack(stream, SEQ_LEN)[0], END)
    return Reader({"plain": stream, "packed": packed}, {}, seed=0, vocab_size=500, end_of_text=END)


def windows(reader: Reader, stream: str) -> list[Window]:
    source = reader.streams[stream]
    return [
        Window("v", stream, start, SEQ_LEN, 0, start // (2 * SEQ_LEN), start // SEQ_LEN % 2)
        for start in range(0, source.blocks * 2 * SEQ_LEN, SEQ_LEN)
    ]


@pytest.mark.parametrize(("stream", "documents"), [("plain", False), ("plain", True), ("packed", True)])
@pytest.mark.parametrize("answers", [False, True])
def test_a_token_is_learned_from_those_of_its_document_and_padding_never(
    reader: Reader, tokens: dict[int, Token], stream: str, answers: bool, documents: bool
) -> None:
    padding = 0
    for window in windows(reader, stream):
        row = reader.row(window, Reading(answers=answers, documents=documents))
        for at, (before, after) in enumerate(pairwise(row.tokens.tolist())):
            if after == END:
                padding += 1
                assert not row.weights[at]
                assert row.documents[at + 1] == PADDING
                continue
            goes_on = before != END and tokens[before].document == tokens[after].document and before + 1 == after
            assert row.weights[at] == ((goes_on or not documents) and (tokens[after].answer or not answers))
            if documents:
                assert (row.documents[at] == row.documents[at + 1]) == goes_on
    assert (padding > 0) == (stream == "packed")


def test_an_end_of_text_within_a_document_does_not_end_it(tmp_path: Path) -> None:
    """The turns of a dialogue are closed by it, and later ones see those before."""
    with ShardWriter(tmp_path / "s", token_dtype(500)) as writer:
        for name in sorted(["a", "b"], key=lambda d: (hash64(d), d)):
            writer.add(name, [5, END, 6, END])
    stream = TokenStream([open_shard(tmp_path / "s")], SEQ_LEN)
    reader = Reader({"s": stream}, {}, seed=0, vocab_size=500, end_of_text=END)
    row = reader.row(Window("v", "s", 0, SEQ_LEN, 0, 0, 0), Reading(documents=True))
    assert row.documents.tolist() == [0] * 4 + [1] * 4
    assert row.weights.tolist() == [1, 1, 1, 0, 1, 1, 1]


def test_fill_in_the_middle_and_best_fit_do_not_go_together(
    tmp_path: Path, make_text_mixture: Callable[..., Opened], make_recipe: Callable[..., Path]
) -> None:
    views = {"code_fim": View(of="code", stream="code", fim=0.5)}
    mixture = make_text_mixture({"code": ["some text"] * 20}, views, {"main": {"code_fim": 1}})
    phase: dict[str, Any] = {"seq_len": 64, "tokens_per_step": 128, "schedule": {"shape": "constant", "peak": 0.01}}
    store = LocalStore(tmp_path / "out")

    def plan(packing: str) -> None:
        recipe = resolve(make_recipe(phases={"main": phase | {"packing": packing}}), None)
        plan_run(FitOptions(recipe, mixture.uri, store.uri, Workers(None, 1)), store)

    plan("documents")
    with pytest.raises(
        RecipeError, match=r"phases\.main\.packing: found 'best_fit'; view 'code_fim' .* Use `documents`"
    ):
        plan("best_fit")
    assert not (store.root / "packs").exists()
