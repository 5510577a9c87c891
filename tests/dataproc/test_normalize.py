"""Records become documents: repaired, long enough, with an id; what cannot be read is set aside and counted."""

from __future__ import annotations

import hashlib
import json
import random
import string
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ftfy
import pytest

from dataproc import normalize
from manifest.errors import DataError
from manifest.identity import content_id

Write = Callable[..., Path]
Make = Callable[..., Any]


@pytest.fixture
def documents(tmp_path: Path, write_jsonl: Write, recipe: Make, build: Make) -> Make:
    """Records of a source `a` (or raw files by name) → a build up to its documents."""

    def run(
        records: list[dict[str, Any]] | dict[str, bytes], clean: dict[str, Any] | None = None, **source: Any
    ) -> Any:
        files = records if isinstance(records, dict) else {}
        for name, data in files.items():
            (tmp_path / "raw" / "a").mkdir(parents=True, exist_ok=True)
            (tmp_path / "raw" / "a" / name).write_bytes(data)
        if not isinstance(records, dict):
            write_jsonl(tmp_path / "raw" / "a" / "x.jsonl", records)
        made = recipe(sources={"a": {"files": "a/*", **source}}, clean={"min_chars": 0, **(clean or {})})
        return build(made, tmp_path / "raw", tmp_path / "store", until="documents")

    return run


def test_a_document_has_an_id_of_its_content_its_source_and_the_other_fields(documents: Make) -> None:
    built = documents([{"text": "It&#39;s", "b": [1, 2.5, None], "a": {"é": True}}])
    digest = hashlib.blake2b(b"It's", digest_size=16).hexdigest()
    assert built.rows("documents", "a") == [
        {"id": f"a/{digest}", "text": "It's", "source": "a", "meta": '{"a":{"é":true},"b":[1,2.5,null]}'}
    ]


def test_meta_alone_is_taken_as_it_is_and_is_canonical(documents: Make) -> None:
    built = documents([{"text": "x", "meta": {"z": 1, "a": 2}}, {"meta": {"a": 2, "z": 1}, "text": "y"}])
    assert [row["meta"] for row in built.rows("documents", "a")] == ['{"a":2,"z":1}'] * 2


def test_the_recipe_names_the_fields_of_text_and_id(documents: Make) -> None:
    built = documents([{"body": "one", "key": 7}, {"body": "two", "key": "x/y"}], text="body", id="key")
    assert [(row["id"], row["text"], row["meta"]) for row in built.rows("documents", "a")] == [
        ("a/7", "one", "{}"),
        ("a/x/y", "two", "{}"),
    ]


def test_text_stays_as_it_is_without_ftfy(documents: Make) -> None:
    built = documents([{"text": "It&#39;s\r\n"}], ftfy=False)
    assert [row["text"] for row in built.rows("documents", "a")] == ["It&#39;s\r\n"]


def cleaned(text: str) -> str:
    return " ".join("".join(c for c in text.lower() if c not in string.punctuation).split())


def test_documents_of_200_cleaned_characters_stay_and_of_199_go(documents: Make) -> None:
    padding = "!? \n\t ..."
    texts = [padding + "ab  cé" * 40 + padding, *("x" * n + padding for n in (199, 200)), ("é " * 100 + padding)]
    lengths = [len(cleaned(text)) for text in texts]
    assert lengths == [200, 199, 200, 199]
    built = documents([{"text": text} for text in texts], clean={"min_chars": 200})
    kept = [text for text, length in zip(texts, lengths, strict=True) if length >= 200]
    assert [row["text"] for row in built.rows("documents", "a")] == [ftfy.fix_text(text) for text in kept]
    assert built.artifact("documents", "a").manifest.summary["short"] == 2


def test_empty_texts_are_dropped_even_where_short_ones_are_not(documents: Make) -> None:
    built = documents([{"text": ""}, {"text": "\x00\x08"}, {"text": "!"}])
    assert [row["text"] for row in built.rows("documents", "a")] == ["!"]


BAD: list[tuple[dict[str, Any], str]] = [
    ({"no_text": "x"}, "field 'text' is missing (fields: no_text)"),
    ({"text": None}, "field 'text' is NoneType; expected a string"),
    ({"text": 5}, "field 'text' is int; expected a string"),
    ({"text": ["a"]}, "field 'text' is list; expected a string"),
    ({"text": "x"}, "field 'id' is None; expected an id"),
    ({"text": "x", "id": True}, "field 'id' is True; expected an id"),
    ({"text": "x", "id": 1.5}, "field 'id' is 1.5; expected an id"),
    ({"text": "x", "id": ""}, "field 'id' is ''; expected an id"),
]


@pytest.mark.parametrize(("record", "reason"), BAD)
def test_a_record_without_what_the_recipe_names_is_set_aside(
    documents: Make, record: dict[str, Any], reason: str
) -> None:
    built = documents([{"text": "good", "id": 1}, record], clean={"max_unreadable": 0.5}, id="id")
    (row,) = built.rows("documents", "a", "quarantine")
    assert (row["file"], row["line"]) == ("a/x.jsonl", 2)
    assert row["reason"].startswith(reason)
    assert built.ids("documents", "a", "documents") == {"a/1"}


def test_metadata_nested_too_deeply_is_set_aside(documents: Make) -> None:
    deep = b'{"text": "x", "m": ' + b'{"a":' * 1000 + b"1" + b"}" * 1001
    built = documents({"x.jsonl": b'{"text": "y"}\n' + deep}, clean={"max_unreadable": 0.5})
    (row,) = built.rows("documents", "a", "quarantine")
    assert row["reason"].startswith("it has no stable form")


def test_every_record_is_counted_once(documents: Make) -> None:
    lines = [b'{"text": "%s"}' % (b"long " * 10), b"not json", b'{"text": "short"}', b'{"no": 1}', b""]
    built = documents({"x.jsonl": b"\n".join(lines)}, clean={"min_chars": 10, "max_unreadable": 0.9})
    summary = built.artifact("documents", "a").manifest.summary
    assert summary == {"records": 4, "unreadable": 2, "short": 1, "documents": 1, "text_bytes": len("long " * 10)}
    assert [row["line"] for row in built.rows("documents", "a", "quarantine")] == [2, 4]


def test_too_many_unreadable_records_stop_the_build_with_the_first_reasons(documents: Make, tmp_path: Path) -> None:
    lines = [b'{"text": "good"}'] * 95 + [b'{"text": 1}', b"not json", b"[]", b"null", b"1"]
    with pytest.raises(DataError) as error:
        documents({"x.jsonl": b"\n".join(lines)})
    message = str(error.value)
    assert "source 'a': 5 of 100 records cannot be read (5.0%; the recipe allows 1.0%)" in message
    assert "a/x.jsonl:96: field 'text' is int" in message
    assert message.count("a/x.jsonl:") == 3
    assert not (tmp_path / "store" / "documents").exists()


def test_a_stricter_limit_also_stops_a_build_whose_documents_are_there(documents: Make) -> None:
    lines = {"x.jsonl": b'{"text": "good"}\nnot json'}
    documents(lines, clean={"max_unreadable": 0.5})
    with pytest.raises(DataError, match=r"(?s)1 of 2 records.*a/x\.jsonl:2: not JSON"):
        documents(lines, clean={"max_unreadable": 0.4})


def test_a_source_of_no_record_is_an_error(documents: Make) -> None:
    with pytest.raises(DataError, match="source 'a' holds no record"):
        documents({"x.jsonl": b"\n\n"})


def test_an_empty_text_file_before_the_others_is_just_empty(documents: Make) -> None:
    built = documents({"0.txt": b"", "1.txt": b"a text"}, id="id")
    assert built.ids("documents", "a", "documents") == {"a/a/1.txt"}


def test_batches_are_no_part_of_what_comes_out(
    documents: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lines = [json.dumps({"text": f"text {i}"}).encode() if i % 7 else b"bad" for i in range(50)]
    whole = documents({"x.jsonl": b"\n".join(lines)}, clean={"max_unreadable": 1})
    monkeypatch.setattr(normalize, "BATCH_BYTES", 1)
    (tmp_path / "store").rename(tmp_path / "first")
    single = documents({"x.jsonl": b"\n".join(lines)}, clean={"max_unreadable": 1})
    assert single.id == whole.id


# ---- the whole stage against its plain form

PIECES = [
    *("word ", "It&#39;s ", "“quoted” ", "&amp; ", "<b>", "\n", "\r\n", "\x00", "\ufeff", "e\u0301", "é ", "â€™", "Ã©"),
    *("слово ", "«В» ", "漢字，", "...", "!?", "   ", "\U0001f600"),
]


def some_texts(count: int) -> list[str]:
    chosen = random.Random(3)
    return ["".join(chosen.choices(PIECES, k=chosen.randint(0, 24))) for _ in range(count)]


def plainly(texts: list[str], min_chars: int) -> list[dict[str, str]]:
    """The documents of texts without ids, each with a field `n`."""
    fixed = ((n, ftfy.fix_text(text, normalization="NFC")) for n, text in enumerate(texts))
    kept = [(n, text) for n, text in fixed if text and len(cleaned(text)) >= min_chars]
    seen: Counter[str] = Counter()
    rows = []
    for n, text in kept:
        identifier = content_id("a", text)
        seen[identifier] += 1
        copy = seen[identifier]
        rows.append(
            {
                "id": identifier if copy == 1 else f"{identifier}.{copy}",
                "text": text,
                "source": "a",
                "meta": f'{{"n":{n}}}',
            }
        )
    return rows


@pytest.mark.parametrize("min_chars", [0, 5, 20])
@pytest.mark.parametrize("batch_bytes", [1, 500, 4_000_000])
def test_documents_are_those_of_one_record_after_the_other(
    documents: Make, monkeypatch: pytest.MonkeyPatch, min_chars: int, batch_bytes: int
) -> None:
    monkeypatch.setattr(normalize, "BATCH_BYTES", batch_bytes)
    texts = some_texts(300)
    lines = [json.dumps({"text": text, "n": n}, ensure_ascii=n % 2 == 0) for n, text in enumerate(texts)]
    built = documents({"x.jsonl": "\n".join(lines).encode()}, clean={"min_chars": min_chars})
    expected = plainly(texts, min_chars)
    assert len(expected) > 50
    assert built.rows("documents", "a") == expected
