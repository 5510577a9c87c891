"""Cleaning against its definition in plain Python: on what is hard, on every character, on real text."""

import re
import string
import sys
import unicodedata

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dataproc.dedup.cleaning import character_counts, clean, clean_all

# Where Python's idea of a letter, a space or a length differs from that of bytes; what NFC composes or puts in order.
TRICKY = "İΣςσÅÅΩǅẞßﬁȺɐ\0\x1c\x1d\x1e\x1f\x85\xa0\u2028\u3000\u200b\ufeff \t\n\v\f\r!-_~'’😀𐐀\u037e\u1fef"
MARKS = "e\u0301\u0323\u0307ा\u09be\u0653\u064b\u0651가\u1100\u1161\u11a8ཱི"
characters = st.one_of(st.sampled_from(TRICKY + MARKS + "aAbB09 "), st.characters(exclude_categories=["Cs"]))
texts = st.text(characters, max_size=100)


def definition(text: str) -> str:
    without = "".join(c for c in unicodedata.normalize("NFC", text).lower() if c not in string.punctuation)
    return re.sub(r"\s+", " ", without.strip())


def test_cleaning_lowers_drops_punctuation_and_joins_spaces() -> None:
    assert clean("  -- Hello,\tWORLD!\n\n(it's) 3.14 ") == "hello world its 314"


def test_punctuation_between_spaces_leaves_one_space() -> None:
    assert clean_all(pa.array(["a - b", "- a -", "--", ""])).to_pylist() == ["a b", "a", "", ""]


@settings(deadline=None, max_examples=500)
@given(st.lists(texts, max_size=8))
@example(["İ", "\0", "a\x1c\x1db", "\x85x\x85", "\xa0", "a\u2028b", "ΑΣ", "ΑΣ.", "plain ascii"])
@example(["ΑΣ" * 200, "Σ\u0301Α Σ", "\u0651\u064b", "\u064b\u0651", "q\u0307\u0323 " * 99, "e \u0301"])
def test_every_row_is_cleaned_as_the_definition_says(rows: list[str]) -> None:
    expected = [definition(row) for row in rows]
    assert [clean(row) for row in rows] == expected
    cleaned = clean_all(pa.array(rows, pa.string()))
    assert cleaned.type == pa.large_string()
    assert cleaned.to_pylist() == expected


@settings(deadline=None, max_examples=200)
@given(texts)
def test_texts_that_are_the_same_to_unicode_are_cleaned_alike(text: str) -> None:
    forms = [unicodedata.normalize(form, text) for form in ("NFC", "NFD")]
    assert len(set(clean_all(pa.array([text, *forms])).to_pylist())) == 1


def test_every_character_is_cleaned_as_python_says() -> None:
    every = [chr(code) for code in range(sys.maxunicode + 1) if not 0xD800 <= code < 0xE000]
    assert clean_all(pa.array(every)).to_pylist() == [clean(character) for character in every]


@pytest.mark.parametrize(("before", "after"), [("e\u0323", "\u0301\u0307"), ("\u1100", "\u1161\u11a8Z")])
def test_every_character_is_cleaned_among_others(before: str, after: str) -> None:
    but_ideographs = [*range(0x3400), *range(0xA000, 0xAC40), *range(0xE000, 0x12000), *range(0x16000, 0x20000)]
    assigned = [chr(code) for code in but_ideographs if unicodedata.category(chr(code)) not in ("Cn", "Co")]
    rows = [before + character + after for character in assigned]
    assert clean_all(pa.array(rows)).to_pylist() == [clean(row) for row in rows]


@pytest.mark.parametrize("piece", ["É", "“x”", "…", "😀Å", " \u3000- ", "\xa0", "!é", "Σ", "\x85\x85"])
def test_a_character_may_lie_anywhere_in_a_block_or_a_buffer(piece: str) -> None:
    rows = ["A" * before + piece + "B" * after for before in range(140) for after in (0, 1, 63, 130)]
    expected = [clean(row) for row in rows]
    assert clean_all(pa.array(rows)).to_pylist() == expected
    assert [clean_all(pa.array([row])).to_pylist() for row in rows[::7]] == [[row] for row in expected[::7]]


def test_chunks_slices_and_string_widths_do_not_matter() -> None:
    rows = ["Zero!", "Ünö", "TWO  two", "3", ""]
    chunked = pa.chunked_array([["dropped", *rows[:2]], rows[2:]], type=pa.string()).slice(1)
    expected = [clean(row) for row in rows]
    assert clean_all(chunked).to_pylist() == expected
    assert clean_all(pa.array(["x", *rows, "y"], pa.large_string()).slice(1, 5)).to_pylist() == expected
    assert clean_all(pa.chunked_array([], type=pa.string())).to_pylist() == []


def test_a_missing_text_is_refused_with_its_row() -> None:
    with pytest.raises(ValueError, match="row 1"):
        clean_all(pa.array(["a", None]))


def test_numbers_are_not_texts() -> None:
    with pytest.raises(TypeError, match="int64"):
        clean_all(pa.array([1, 2]))


def unchecked(rows: list[bytes]) -> pa.LargeStringArray:
    """Bytes that claim to be texts, as a Parquet file may hold them."""
    binary = pa.array(rows, pa.large_binary())
    return pa.LargeStringArray.from_buffers(len(rows), *binary.buffers()[1:])


@settings(deadline=None, max_examples=500)
@given(st.one_of(st.binary(max_size=80), texts.map(str.encode)), st.data())
@example("é".encode()[:1], None)
@example(b"\xc1\xbf", None)  # two bytes for what takes one
@example(b"\xed\xa0\x80", None)  # a surrogate
@example(b"\xf4\x90\x80\x80", None)  # beyond the last character
@example(b"a" * 63 + b"\xe2\x80", None)
def test_what_is_not_utf8_is_refused(raw: bytes, data: st.DataObject | None) -> None:
    if data and raw:  # one bit off is nearly a text
        at = data.draw(st.integers(0, len(raw) - 1))
        raw = raw[:at] + bytes([raw[at] ^ 1 << data.draw(st.integers(0, 7))]) + raw[at + 1 :]
    try:
        expected = clean(raw.decode())
    except UnicodeDecodeError:
        with pytest.raises(ValueError, match="not UTF-8"):
            clean_all(unchecked([b"fine", raw, "schön".encode()]))
    else:
        assert clean_all(unchecked([b"fine", raw, "schön".encode()])).to_pylist() == ["fine", expected, "schön"]


@settings(deadline=None)
@given(st.lists(texts, max_size=8))
def test_characters_are_code_points(rows: list[str]) -> None:
    cleaned = clean_all(pa.array(rows, pa.string()))
    assert character_counts(cleaned).tolist() == [len(definition(row)) for row in rows]
