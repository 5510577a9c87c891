"""A stream holds every document once, in order of id hash, and nothing but its text and the token that ends it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from dataproc import tokenize
from manifest.artifact import open_streams
from manifest.corpus import TokenStream
from manifest.errors import RecipeError
from manifest.identity import hash64

Make = Callable[..., Any]

TEXTS = [
    "plain",
    "two\nlines\r\n",
    "漢字 🙂 é",
    "  spaces  ",
    "<|endoftext|> in the text <|endoftext|>",
    "x" * 5000,
    "\x00",
]


@pytest.fixture
def raw(tmp_path: Path, write_jsonl: Make, words: Make) -> Path:
    texts = TEXTS + [" ".join(words(i, 20)) for i in range(60)]
    write_jsonl(tmp_path / "raw" / "a" / "x.jsonl", [{"text": t, "id": i} for i, t in enumerate(texts)])
    write_jsonl(tmp_path / "raw" / "a" / "y.jsonl", [{"text": t, "id": f"y{i}"} for i, t in enumerate(texts)])
    return tmp_path / "raw"


@pytest.fixture
def one(recipe: Make) -> Any:
    return recipe(sources={"a": {"files": "a/*", "id": "id", "ftfy": False}})


def stream(built: Any) -> TokenStream:
    return open_streams(built.published[0])["a"]


def documents(found: TokenStream) -> list[tuple[str, list[int]]]:
    spans = list(found.spans(0, found.tokens))
    return [(s.document, found.read(s.start, s.stop - s.start).tolist()) for s in spans]


def test_every_document_decodes_to_its_text_and_ends_once(raw: Path, tmp_path: Path, one: Any, build: Make) -> None:
    built = build(one, raw, tmp_path / "store")
    tokenizer = Tokenizer.from_file(str(built.artifact("tokenizers", "bpe").directory / "tokenizer.json"))
    end = built.mixture.tokenizer.end_of_text
    texts = {row["id"]: row["text"] for row in built.rows("documents", "a")}
    found = documents(stream(built))
    assert {i: tokenizer.decode(tokens[:-1], skip_special_tokens=False) for i, tokens in found} == texts
    assert all(tokens.index(end) == len(tokens) - 1 for _, tokens in found)


def test_documents_are_in_order_of_id_hash(raw: Path, tmp_path: Path, one: Any, build: Make) -> None:
    built = build(one, raw, tmp_path / "store")
    ids = [row["id"] for row in built.rows("documents", "a")]
    assert [i for i, _ in documents(stream(built))] == sorted(ids, key=lambda i: (hash64(i), i))


def test_several_shards_hold_the_same_stream_as_one(
    raw: Path, tmp_path: Path, one: Any, build: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = build(one, raw, tmp_path / "whole")
    monkeypatch.setattr(tokenize, "SHARD_TEXT_BYTES", 1500)
    cut = build(one, raw, tmp_path / "cut")
    assert len(cut.mixture.streams["a"].shards) > 5
    assert documents(stream(cut)) == documents(stream(whole))
    assert cut.mixture.streams["a"].tokens == whole.mixture.streams["a"].tokens
    assert sum(shard.documents for shard in cut.mixture.streams["a"].shards) == len(documents(stream(whole)))


def test_batches_do_not_change_the_tokens(
    raw: Path, tmp_path: Path, one: Any, build: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = build(one, raw, tmp_path / "whole")
    monkeypatch.setattr(tokenize, "BATCH_BYTES", 1)
    assert build(one, raw, tmp_path / "single").id == whole.id


def test_a_source_of_which_nothing_is_left_has_no_stream(
    raw: Path, tmp_path: Path, write_jsonl: Make, recipe: Make, build: Make
) -> None:
    write_jsonl(raw / "b" / "x.jsonl", [{"text": "short"}])
    both = {"a": {"files": "a/*"}, "b": {"files": "b/*", "min_chars": 200}}
    only_a = recipe(sources=both, phases={"only": {"epochs": {"a": 1}}})
    built = build(only_a, raw, tmp_path / "store")
    assert list(built.mixture.streams) == ["a"]
    assert built.mixture.summary["sources"]["b"]["tokens"] == 0
    with pytest.raises(RecipeError, match=r"phase 'only' draws from 'b', but nothing of that source is left"):
        build(recipe(sources=both), raw, tmp_path / "store")
