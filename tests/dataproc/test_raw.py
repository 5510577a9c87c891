"""The same records come out of every format, and a file that is not what its name says is refused."""

from __future__ import annotations

import datetime
import decimal
import gzip
import itertools
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from dataproc.raw import RawFile, RawRoot, Unreadable, _lines, chunks, records, require_unchanged, sha256_of, tasks
from dataproc.recipe.sources import Source
from manifest.errors import DataError, InputError

RECORDS: list[dict[str, Any]] = [
    {"text": "one\nline", "meta": {"n": 1}},
    {"text": "زوج ﷺ 漢字 \u2028 \x85 end", "meta": {"n": 2}},
    {"text": "", "meta": {"n": 3}},
]
JSONL = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in RECORDS).encode()


def raw(path: Path) -> RawFile:
    info = path.stat()
    return RawFile(path=path.name, uri=str(path), bytes=info.st_size, changed_ns=info.st_mtime_ns)


def write(path: Path, data: bytes) -> RawFile:
    path.write_bytes(data)
    return raw(path)


def read(file: RawFile) -> list[Any]:
    return [record for _, record in records(file)]


def parquet(path: Path) -> bytes:
    pq.write_table(pa.Table.from_pylist(RECORDS), path)
    return path.read_bytes()


def halves(data: bytes) -> tuple[bytes, bytes]:
    return data[: len(data) // 2], data[len(data) // 2 :]


ENCODERS: dict[str, Callable[[bytes], bytes]] = {
    "x.jsonl": bytes,
    "x.ndjson": bytes,
    "x.json": lambda data: data.removesuffix(b"\n"),
    "crlf.jsonl": lambda data: data.replace(b"\n", b"\r\n"),
    "blank.jsonl": lambda data: b"\n \n" + data.replace(b"\n", b"\n\n") + b"\t\n",
    "bom.jsonl": lambda data: b"\xef\xbb\xbf" + data,
    "x.jsonl.gz": gzip.compress,
    "members.jsonl.gz": lambda data: b"".join(gzip.compress(half) for half in halves(data)),
    "x.jsonl.zst": zstandard.compress,
    "frames.jsonl.zst": lambda data: b"".join(zstandard.compress(half) for half in halves(data)),
    "streamed.jsonl.zst": lambda data: zstandard.ZstdCompressor(write_content_size=False).compress(data),
    "long.jsonl.zst": lambda data: zstandard.ZstdCompressor(
        compression_params=zstandard.ZstdCompressionParameters(window_log=30, write_content_size=False)
    ).compress(data),
}


@pytest.mark.parametrize("name", ENCODERS)
def test_every_kind_of_lines_holds_the_same_records(tmp_path: Path, name: str) -> None:
    assert read(write(tmp_path / name, ENCODERS[name](JSONL))) == RECORDS


def test_parquet_holds_the_same_records(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    parquet(path)
    assert list(records(raw(path))) == list(enumerate(RECORDS, 1))


def test_lines_are_numbered_from_one_counting_blank_ones(tmp_path: Path) -> None:
    file = write(tmp_path / "x.jsonl", b'\n{"text": "a"}\n\n{"text": "b"}')
    assert [number for number, _ in records(file)] == [2, 4]


@pytest.mark.parametrize("name", ["x.txt", "x.md", "no_extension", "x.txt.gz", "x.txt.zst"])
def test_anything_else_is_one_document_with_its_path_as_id(tmp_path: Path, name: str) -> None:
    text = "a text\r\nof two lines\n"
    squeeze = {".gz": gzip.compress, ".zst": zstandard.compress}.get(Path(name).suffix, bytes)
    assert read(write(tmp_path / name, squeeze(text.encode()))) == [{"text": text, "id": name}]


def test_a_line_of_20_mb_is_one_record(tmp_path: Path) -> None:
    text = "0123456789" * 2_000_000
    file = write(tmp_path / "x.jsonl", json.dumps({"text": text}).encode() + b"\n" + JSONL)
    assert read(file) == [{"text": text}, *RECORDS]


def test_times_and_decimals_of_parquet_are_strings(tmp_path: Path) -> None:
    row = {
        "text": "a",
        "day": datetime.date(2024, 2, 29),
        "at": datetime.datetime(2024, 2, 29, 12, tzinfo=datetime.UTC),
        "price": decimal.Decimal("1.50"),
    }
    nanoseconds = pa.array([1_700_000_000_123_456_789], pa.timestamp("ns"))
    path = tmp_path / "x.parquet"
    pq.write_table(pa.Table.from_pylist([row]).append_column("ns", nanoseconds), path)
    (found,) = read(raw(path))
    assert json.loads(json.dumps(found)) == found
    assert (found["day"], found["price"]) == ("2024-02-29", "1.50")
    assert found["ns"].endswith(".123456789")


# ---- what cannot be read

CUT: dict[str, bytes] = {
    "cut.jsonl.gz": gzip.compress(JSONL * 50)[:-9],
    "cut_trailer.jsonl.gz": gzip.compress(JSONL)[:-1],
    "cut_second.jsonl.gz": gzip.compress(JSONL) + gzip.compress(JSONL)[:-3],
    "cut.jsonl.zst": zstandard.compress(JSONL * 50)[:-5],
    "cut_second.jsonl.zst": zstandard.compress(JSONL) + zstandard.compress(JSONL)[:-3],
    "cut.txt.gz": gzip.compress(b"a text" * 50)[:-9],
}


@pytest.mark.parametrize("name", CUT)
def test_a_file_that_is_cut_off_is_refused(tmp_path: Path, name: str) -> None:
    file = write(tmp_path / name, CUT[name])
    with pytest.raises(DataError, match=rf"{name} is cut off.*write it again"):
        read(file)


@pytest.mark.parametrize("name", ["x.jsonl.gz", "x.jsonl.zst", "x.parquet"])
@pytest.mark.parametrize("data", [b"garbage " * 100, b"PAR1 garbage PAR1"], ids=["garbage", "magic"])
def test_garbage_with_the_right_extension_is_refused(tmp_path: Path, name: str, data: bytes) -> None:
    file = write(tmp_path / name, data)
    with pytest.raises(DataError, match=rf"{name} is .*write it again"):
        read(file)


def test_a_parquet_file_without_its_end_is_refused(tmp_path: Path) -> None:
    data = parquet(tmp_path / "x.parquet")
    file = write(tmp_path / "x.parquet", data[: len(data) // 2])
    with pytest.raises(DataError, match=r"x\.parquet is not a whole Parquet file"):
        read(file)


def test_a_damaged_gzip_member_is_refused(tmp_path: Path) -> None:
    data = bytearray(gzip.compress(os.urandom(100_000)))
    data[50_000] ^= 1
    file = write(tmp_path / "x.jsonl.gz", bytes(data))
    with pytest.raises(DataError, match="is damaged or not what its name says"):
        read(file)


@pytest.mark.parametrize("name", ["x.jsonl", "x.jsonl.gz", "x.parquet", "x.json.zst"])
def test_a_file_of_no_bytes_is_refused(tmp_path: Path, name: str) -> None:
    file = write(tmp_path / name, b"")
    with pytest.raises(DataError, match=rf"{name} is empty"):
        read(file)


@pytest.mark.parametrize("squeeze", [gzip.compress, zstandard.compress])
def test_a_compressed_file_of_nothing_is_refused(tmp_path: Path, squeeze: Callable[[bytes], bytes]) -> None:
    name = "x.jsonl.gz" if squeeze is gzip.compress else "x.jsonl.zst"
    file = write(tmp_path / name, squeeze(b""))
    with pytest.raises(DataError, match="holds no record"):
        read(file)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"text": "\xff\xfe"}', "invalid UTF-8 at byte 10"),
        (b'{"text": "\xed\xa0\x80"}', "invalid UTF-8 at byte 10"),
        (b'{"text": "\\ud800"}', "lone surrogate"),
        (b'{"text": "\\udc00 and more"}', "lone surrogate"),
        (b'{"text": "no end', "not JSON"),
        (b'{"text": NaN}', "not JSON"),
        (b'{"text": "a"} {"text": "b"}', "not JSON"),
        (b'["a list"]', "expected a JSON object, found list"),
        (b'"a string"', "expected a JSON object, found str"),
        (b"null", "expected a JSON object, found NoneType"),
        (b"[" * 100_000, "not JSON"),
        (gzip.compress(b"gzip without its extension"), "invalid UTF-8"),
    ],
)
def test_a_line_that_is_no_object_is_set_aside_and_the_next_one_read(tmp_path: Path, line: bytes, reason: str) -> None:
    file = write(tmp_path / "x.jsonl", line.replace(b"\n", b"") + b"\n" + JSONL)
    bad, *good = read(file)
    assert isinstance(bad, Unreadable)
    assert (bad.file, bad.line) == ("x.jsonl", 1)
    assert reason in bad.reason
    assert good == RECORDS


def test_plain_text_that_is_no_utf8_is_set_aside(tmp_path: Path) -> None:
    (bad,) = read(write(tmp_path / "x.txt", b"caf\xe9"))
    assert isinstance(bad, Unreadable)
    assert bad.reason == "invalid UTF-8 at byte 3"
    assert bad.excerpt == "caf\\xe9"


def test_a_parquet_row_that_is_no_utf8_is_set_aside_and_the_others_read(tmp_path: Path) -> None:
    values = pa.array([b"one", b"caf\xe9", b"three"])
    text = pa.StringArray.from_buffers(3, values.buffers()[1], values.buffers()[2])
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"text": text}), path)
    first, bad, last = read(raw(path))
    assert (first, last) == ({"text": "one"}, {"text": "three"})
    assert isinstance(bad, Unreadable)
    assert (bad.line, bad.reason) == (2, "invalid UTF-8 at byte 3")


# ---- lines


@given(st.lists(st.binary(max_size=5).map(lambda b: b.replace(b"\r", b"\n"))))
def test_lines_do_not_depend_on_where_chunks_end(parts: list[bytes]) -> None:
    whole = b"".join(parts)
    expected = whole.split(b"\n")
    assert list(_lines(iter(parts))) == (expected if expected[-1] else expected[:-1])


# ---- files


@pytest.fixture
def tree(tmp_path: Path) -> RawRoot:
    for name in ("a/1.jsonl", "a/2.txt", "a/b/3.jsonl", "a/b/c/4.jsonl", "a/.5.jsonl", "a/.git/6.jsonl", "top.jsonl"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(JSONL)
    return RawRoot(str(tmp_path))


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("a/*", ["a/1.jsonl", "a/2.txt"]),
        ("a/*.jsonl", ["a/1.jsonl"]),
        ("a/**", ["a/1.jsonl", "a/2.txt", "a/b/3.jsonl", "a/b/c/4.jsonl"]),
        ("a/**/*.jsonl", ["a/1.jsonl", "a/b/3.jsonl", "a/b/c/4.jsonl"]),
        ("**/c/*", ["a/b/c/4.jsonl"]),
        ("a/*/*", ["a/b/3.jsonl"]),
        ("a/[12].*", ["a/1.jsonl", "a/2.txt"]),
        ("a/.git/*", ["a/.git/6.jsonl"]),
        ("./top.jsonl", ["top.jsonl"]),
        ("*", ["top.jsonl"]),
    ],
)
def test_a_star_stays_in_its_directory_and_skips_hidden_names(tree: RawRoot, pattern: str, found: list[str]) -> None:
    source = Source.model_validate({"files": pattern})
    assert [file.path for file in tree.files("a", source)] == found


def test_a_file_that_two_patterns_match_is_read_once(tree: RawRoot) -> None:
    files = tree.files("a", Source(files=("a/*.txt", "a/2*")))
    assert [file.path for file in files] == ["a/2.txt"]


def test_a_pattern_that_matches_nothing_is_an_error(tree: RawRoot) -> None:
    with pytest.raises(DataError, match=r"source 'web': no file matches 'a/\*\.csv' under .*correct 'files'"):
        tree.files("web", Source(files=("a/*.csv",)))


@pytest.mark.parametrize("root", ["nowhere", "x.jsonl", "gopher://host/path"])
def test_a_raw_root_that_is_no_directory_is_an_error(tmp_path: Path, root: str) -> None:
    (tmp_path / "x.jsonl").write_bytes(JSONL)
    with pytest.raises(InputError, match=root):
        RawRoot(root if "://" in root else str(tmp_path / root)).files("a", Source(files=("*",)))


def test_a_relative_root_names_files_by_absolute_path(tree: RawRoot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tree.uri)
    (file,) = RawRoot("a").files("a", Source(files=("*.txt",)))
    assert file.uri == f"{tree.uri}/a/2.txt"


def test_a_file_uri_is_the_same_as_its_path(tree: RawRoot) -> None:
    source = Source(files=("a/*.txt",))
    (by_path,), (by_uri,) = tree.files("a", source), RawRoot(f"file://{tree.uri}").files("a", source)
    assert by_uri.model_copy(update={"uri": by_path.uri}) == by_path
    assert read(by_uri) == read(by_path)
    assert sha256_of(by_uri).sha256 == sha256_of(by_path).sha256


def test_a_file_that_changes_under_the_build_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path / "x.jsonl", JSONL)
    require_unchanged(file)
    os.utime(file.uri, ns=(0, file.changed_ns + 1))
    with pytest.raises(DataError, match=r"x\.jsonl was changed while it was read"):
        require_unchanged(file)


def sized(sizes: list[int]) -> list[RawFile]:
    return [RawFile(path=str(i), uri=str(i), bytes=size, changed_ns=0) for i, size in enumerate(sizes)]


@given(st.lists(st.integers(0, 40_000_000)))
def test_tasks_hold_every_file_once_in_order_and_few_bytes(sizes: list[int]) -> None:
    groups = tasks(sized(sizes))
    assert [file for group in groups for file in group] == sized(sizes)
    assert all(len(group) == 1 or sum(file.bytes for file in group) <= 16_000_000 for group in groups)
    assert all(sum(f.bytes for f in (*a, b[0])) > 16_000_000 for a, b in itertools.pairwise(groups))


def test_reading_a_bomb_takes_little_memory_at_a_time(tmp_path: Path) -> None:
    file = write(tmp_path / "x.jsonl.gz", gzip.compress(b" " * 150_000_000, 1))
    assert max(map(len, chunks(file))) < 100_000_000


def test_a_file_name_that_is_no_utf8_is_told(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    Path(os.fsdecode(bytes(tmp_path / "a") + b"/\xff.jsonl")).touch()
    with pytest.raises(InputError, match=r"a name that is no UTF-8 \(.*xff.jsonl"):
        RawRoot(str(tmp_path)).files("a", Source(files=("a/*",)))
