"""What is read in bulk is what would be read record by record."""

from __future__ import annotations

import json
import math
import reprlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dataproc import jsonl, raw
from dataproc.raw import RawFile, Unreadable, records
from dataproc.recipe.sources import Source
from dataproc.rows import Rows, meta_json, rows
from manifest.identity import canonical_json

Row = tuple[str, str, str] | Unreadable


def raw_file(path: Path) -> RawFile:
    info = path.stat()
    return RawFile(path=path.name, uri=str(path), bytes=info.st_size, changed_ns=info.st_mtime_ns)


def plainly(file: RawFile, source: Source) -> tuple[list[tuple[str, str, bytes]], list[Unreadable]]:
    """The rows (id, text, meta) of a file, and its unreadable records, one record after the other."""
    good, bad = [], []
    for line, record in records(file):
        if isinstance(record, Unreadable):
            bad.append(record)
            continue
        reason = wrong(record, source)
        if reason is not None:
            bad.append(Unreadable(file=file.path, line=line, reason=reason, excerpt=reprlib.repr(record)))
            continue
        identifier = "" if source.id is None else f"a/{record[source.id]}"
        good.append((identifier, record[source.text], canonical_json(others(record, source))))
    return good, bad


def others(record: dict[str, Any], source: Source) -> Any:
    found = {key: value for key, value in record.items() if key not in (source.text, source.id)}
    return found["meta"] if list(found) == ["meta"] and isinstance(found["meta"], dict) else found


def wrong(record: dict[str, Any], source: Source) -> str | None:
    """Why a record cannot become a document, if it cannot."""
    text = record.get(source.text)
    if source.text not in record:
        return f"field {source.text!r} is missing (fields: {', '.join(record)}); expected a string"
    if not isinstance(text, str):
        return f"field {source.text!r} is {type(text).__name__}; expected a string"
    value = None if source.id is None else record.get(source.id)
    if source.id is not None and (isinstance(value, bool) or not isinstance(value, str | int) or value == ""):
        return f"field {source.id!r} is {value!r}; expected an id (a string or a whole number)"
    try:
        canonical_json(others(record, source))
    except (TypeError, ValueError, RecursionError) as error:
        return f"it has no stable form: {error}"
    return None


def in_bulk(file: RawFile, source: Source, size: int = 4_000_000) -> tuple[list[Any], list[Unreadable]]:
    found: list[Rows] = list(rows(file, "a", source, size))
    good = [row for part in found for row in zip(part.ids, part.texts.to_pylist(), part.metas, strict=True)]
    return good, [bad for part in found for bad in part.bad]


SOURCES = [
    Source(files=("x",)),
    Source(files=("x",), id="id"),
    Source(files=("x",), text="te xt", id="id"),
    Source(files=("x",), text="id", id="id"),
    Source(files=("x",), text='q"', id="id"),
    Source(files=("x",), text="漢", id="id"),
]

# ---- lines

KEYS = st.sampled_from(["text", "id", "meta", "te xt", 'q"', "漢", "a", "", "\x7f", "te\u0078t"])
CHARACTERS = st.one_of(st.sampled_from(' "\\/\x7f\x00\x1f\n\r\té漢😀\ud800\udc00:{}u1'), st.characters())
VALUES = st.recursive(
    st.one_of(
        st.text(CHARACTERS, max_size=6),
        st.integers(-(2**70), 2**70),
        st.floats(allow_nan=False, allow_infinity=False),
        st.sampled_from([None, True, False, "", "\x7f", "\x7f\x7f", "text", '"text": "']),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(KEYS, inner, max_size=3)),
    max_leaves=4,
)


def member(key: str, value: Any, ascii_only: bool, blank: str) -> str:
    return f"{json.dumps(key, ensure_ascii=ascii_only)}{blank}:{blank}{json.dumps(value, ensure_ascii=ascii_only)}"


MEMBER = st.builds(member, KEYS, VALUES, st.booleans(), st.sampled_from(["", " ", "\t"]))
TEXT = st.builds(member, st.just("text"), st.text(CHARACTERS, max_size=8), st.booleans(), st.just(""))
ID = st.builds(
    member, st.just("id"), st.one_of(st.integers(), st.text(CHARACTERS, max_size=3)), st.just(False), st.just("")
)
RECORD = st.lists(st.one_of(TEXT, ID, MEMBER), max_size=5).map(lambda found: "{" + ", ".join(found) + "}")
ODD_LINES = [
    *(
        "",
        " ",
        "\r",
        "[]",
        "null",
        '"text"',
        "{}",
        "{",
        '{"text"',
        '{"text":',
        '{"text":"',
        '{"text":"\\',
        '{"text":"\\u',
    ),
    *('{"text":"\\u12', '{"text":"a"', '{"text":"a"}}', '{"text":"a"},{"text":"b"}', '{"text":"a",}', '{"text":"\t"}'),
    *(
        '{"text":"\\x"}',
        '{"text":"\\ud800"}',
        '{"text":"\\udc00\\ud800"}',
        '{"text":"\\ud83d\\ude00"}',
        '{"text":"\\uD83D"}',
    ),
    *('{"text":"a","text":"b"}', '{"text":"a","te\\u0078t":"b"}', '{"te\\u0078t":"a"}', '{"text":"a","text":"\x7f"}'),
    *('{"text":"a","text":1}', '{"text":1,"text":"a"}', '{"a":"\\"text\\":\\"b","text":"c"}', '{"a":"\\"text":"b"}'),
    *(
        '{"a":{"text":"b"}}',
        '{"a":{"text":"b"},"text":"c"}',
        '{"text":"c","a":{"text":"b"}}',
        '["text","a"]',
        '{"text":"text"}',
    ),
    *('{"a":"text","text":"b"}', '{"text":"a"} ', ' {"text":"a"}', '\ufeff{"text":"a"}', '{"text":"\\u0000\\/\\b\\f"}'),
]
LINE = st.one_of(
    RECORD.map(lambda line: line.encode("utf-8", "surrogatepass")),
    RECORD.map(lambda line: line.encode("utf-8", "surrogatepass")),
    st.sampled_from(ODD_LINES).map(str.encode),
    st.tuples(RECORD, st.integers(0, 60), st.binary(max_size=2)).map(
        lambda parts: parts[0].encode("utf-8", "surrogatepass")[: parts[1]] + parts[2]
    ),
)
LINES = st.lists(LINE, min_size=1, max_size=8).map(b"\n".join)


@given(LINES, st.sampled_from(SOURCES), st.sampled_from([1, 10, 4_000_000]))
@example("\n".join(ODD_LINES).encode(), SOURCES[0], 4_000_000)
@example("\n".join(ODD_LINES).encode(), SOURCES[1], 1)
@example(b'{"text":"\xc3"}\n{"text":"\xa9"}\n{"text":"ok"}', SOURCES[0], 4_000_000)
@settings(max_examples=120, deadline=None)
def test_lines_in_bulk_are_lines_one_by_one(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, source: Source, size: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "rows.jsonl"
    path.write_bytes(data or b"\n")
    file = raw_file(path)
    assert in_bulk(file, source, size) == plainly(file, source)


def test_most_lines_of_usual_files_are_read_in_bulk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values: list[dict[str, Any]] = [
        {"text": 'a text\n\twith "quotes", é and 😀', "meta": {"n": 1, "share": 0.5, "of": "x"}},
        {"id": "a/1", "text": "\u2028", "url": "https://a.example/~b?c=d&e", "tags": ["a", None, True]},
        {"text": "", "meta": {"title": "«название»\\"}},
    ]
    lines = [json.dumps(value, ensure_ascii=ascii_only) for value in values for ascii_only in (False, True)]
    path = tmp_path / "x.jsonl"
    path.write_text("\n".join(lines))
    expected = plainly(raw_file(path), Source(files=("x",)))
    monkeypatch.setattr(raw, "line_record", None)
    assert in_bulk(raw_file(path), Source(files=("x",))) == expected


@given(st.lists(st.sampled_from([b"\n", b"a", b"bc\n", b"", b"\n\n", b"d\nefgh\ni"])), st.integers(1, 12))
def test_blocks_are_whole_lines_wherever_chunks_end(parts: list[bytes], size: int) -> None:
    lines = b"".join(parts).splitlines(keepends=True)
    expected = [b""]
    for line in lines:
        expected += [b""] if len(expected[-1]) >= size else []
        expected[-1] += line if line.endswith(b"\n") else line + b"\n"
    assert list(jsonl.blocks(iter(parts), size)) == [block for block in expected if block]


# ---- Parquet

COLUMNS: dict[str, pa.Array] = {
    "text": pa.array(["one", "", "three é", "4"]),
    "id": pa.array([1, 2, None, 4]),
    "meta": pa.array([{"a": 1.5}, {"a": None}, {"a": math.inf}, {"a": 1e300}]),
    "nothing": pa.array([None] * 4),
    "bytes": pa.array([None, b"x", None, None]),
    "list": pa.array([[1], [], None, [2, 3]]),
}
TEXTS: dict[str, pa.Array] = {
    "string": COLUMNS["text"],
    "large": COLUMNS["text"].cast(pa.large_string()),
    "dictionary": COLUMNS["text"].dictionary_encode(),
    "null": pa.array(["one", None, "three", "4"]),
    "binary": pa.array([b"one", b"two", b"three", b"4"]),
    "number": pa.array([1, 2, 3, 4]),
    "decimal": pa.array([1, 2, 3, 4]).cast(pa.decimal128(21, 2)),
}


def not_utf8(column: pa.Array) -> pa.Array:
    values = pa.array([b"one", b"caf\xe9", b"three", b"4"])
    return pa.StringArray.from_buffers(4, values.buffers()[1], values.buffers()[2])


@pytest.mark.parametrize("kind", [*TEXTS, "not UTF-8", "missing"])
@pytest.mark.parametrize(
    "other", [(), ("id",), ("meta",), ("id", "meta", "nothing"), ("id", "bytes", "list"), ("bad",)]
)
@pytest.mark.parametrize("source", SOURCES[:2], ids=["no id", "id"])
def test_parquet_in_bulk_is_parquet_one_by_one(
    tmp_path: Path, kind: str, other: tuple[str, ...], source: Source
) -> None:
    bad = not_utf8(COLUMNS["text"])
    columns = {name: bad if name == "bad" else COLUMNS[name] for name in other}
    if kind != "missing":
        columns["text"] = bad if kind == "not UTF-8" else TEXTS[kind]
    columns = columns or {"other": COLUMNS["id"]}
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table(columns), path)
    file = raw_file(path)
    assert in_bulk(file, source) == plainly(file, source)


# ---- metadata

JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(CHARACTERS), st.binary(max_size=2)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(CHARACTERS, max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)


def outcome(write: Callable[[Any], bytes], value: Any) -> bytes | str:
    try:
        return write(value)
    except (TypeError, ValueError) as error:
        return str(error)


@given(st.dictionaries(st.text(CHARACTERS, max_size=3), JSON, max_size=4))
@example({"z": 1, "a": {"é": 2, "\U00010000": 1, "\uffff": 2}})
@example({"".join(map(chr, range(0x80))): "".join(map(chr, range(0x80)))})
@example({"big": 2**63, "bigger": 2**64, "small": -(2**63), "smaller": -(2**64)})
@example({"a": [[[{"b": (1, 2)}]]]})
@settings(max_examples=200)
def test_metadata_is_canonical_json(value: dict[str, Any]) -> None:
    assert outcome(meta_json, value) == outcome(canonical_json, value)


def edges() -> Iterator[float]:
    for exponent in range(-12, 25):
        for digits in (1.0, 1.5, 9.999999999999999, 1.2345678901234567, 5e-324):
            yield digits * 10.0**exponent
            yield -digits * 10.0**exponent


@given(st.one_of(st.floats(1e-6, 1e18), st.sampled_from([*edges(), 0.0, -0.0])))
@settings(max_examples=200)
def test_floats_are_written_as_by_python(value: float) -> None:
    assert meta_json({"a": value}) == canonical_json({"a": value})
