"""Whether enough of a text is left is what cleaning it would say."""

from __future__ import annotations

import sys

import pyarrow as pa
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dataproc.dedup.cleaning import clean
from dataproc.length import have_characters

PIECES = [
    *"aB1 \t\n.,!_é漢、。😀",
    "\x85",
    "\xa0",
    "\u1680",
    "\u2003",
    "\u2028",
    "\u3000",
    "“",
    "İ",
    "Σ",
    "  ",
    "word ",
    "\x1c",
]
TEXT = st.one_of(st.lists(st.sampled_from(PIECES), max_size=8).map("".join), st.text(max_size=8))


@given(st.lists(TEXT, max_size=5), st.integers(0, 12))
@example(["", " ", "...", "İ", "a b"], 1)
@settings(max_examples=400, deadline=None)
def test_texts_have_the_characters_that_are_left_of_them(texts: list[str], count: int) -> None:
    found = have_characters(pa.array(texts, pa.large_string()), count)
    assert found.tolist() == [len(clean(text)) >= count for text in texts]


def test_every_character_counts_as_cleaning_counts_it() -> None:
    characters = [chr(code) for code in range(sys.maxunicode + 1) if not 0xD800 <= code < 0xE000]
    found = have_characters(pa.array(characters, pa.large_string()), 1)
    assert found.tolist() == [len(clean(character)) >= 1 for character in characters]
