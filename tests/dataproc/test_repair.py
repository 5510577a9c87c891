"""Every text is repaired as by ftfy, and what is skipped is what ftfy provably leaves alone."""

from __future__ import annotations

import itertools
import random
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from re import _constants as opcodes  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

import ftfy
import numpy as np
import pyarrow as pa
import pytest
from ftfy.badness import BADNESS_RE
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.reference import RAW, needs_raw

from dataproc import repair as module
from dataproc.characters import CODE_POINTS, characters
from dataproc.kernels.flags import ALONE, LETTER, MOJIBAKE, STRONG, TELLING
from dataproc.raw import RawRoot, records
from dataproc.recipe.sources import Source
from dataproc.repair import fix_text, repair

KINDS = characters().kinds
NAMED = [chr(code) for code in np.flatnonzero(KINDS) if not 0xD800 <= code < 0xE000]
PLAIN = [chr(code) for code in np.flatnonzero(KINDS == 0) if not 0xD800 <= code < 0xE000]
FRAGMENTS = [
    *(
        "&amp;",
        "&lt",
        "&#xd800;",
        "&#10;",
        "&EACUTE;",
        "&",
        "&amp;amp;",
        "&ａｍｐ;",
        "＆amp;",
        "&\x00amp;",
        "<b>",
        "＜",
    ),
    *("\r", "\r\n", "\n", "\r\r\n", "\u2028", "\x85", "\x1b[31m", "\x7f", "\ufeff", "\x00", "\t", "\x0c"),
    *("é", "e\u0301", "\u0301\u0316", "\u0316\u0301", "\u0651\u064e", "\u1100\u1161\u11a8", "ﾊﾞ", "ﾡￂ", "Å", "K", "क़"),
    *("“", "”", "’", "ʼ", "ŉ", "ﬁ", "Ǆ", "ﬅ", "Ａ", "　", "￣", "，", "ｶ", "«", "»", "–", "…", "œ ", "Œ", "Â ", "Ã "),
    *("â€™", "Ã©", "Ã ", "schÃ¶n", "â€œ", "Ð¿Ñ€", "Ø§Ù„", "вЂ™", "ГўВЂВ™a", "\xe0\xb2", "ä½\xa0å¥½", "ðŸ˜€", "â�"),
    *("слово", "كلمة", "漢字", "かな", "𝒥", "😀", "\U000e0067", "word ", "a", "A", "1", " ", "°", "É", "µ", "×²"),
]
MIXED = st.lists(
    st.one_of(
        st.sampled_from(FRAGMENTS),
        st.sampled_from(NAMED),
        st.text(st.characters(max_codepoint=0x7F), max_size=4),
        st.text(st.characters(exclude_categories=["Cs"]), max_size=3),
        st.sampled_from(FRAGMENTS).map(lambda text: text.encode().decode("latin-1")),
        st.sampled_from(FRAGMENTS).map(lambda text: text.encode().decode("windows-1252", errors="replace")),
    ),
    max_size=12,
).map("".join)


def repaired(texts: list[str]) -> list[str]:
    return list(repair(pa.array(texts, pa.large_string())).to_pylist())


def by_ftfy(texts: list[str]) -> list[str]:
    return [ftfy.fix_text(text, normalization="NFC") for text in texts]


@given(MIXED)
@example("&#xd800; &#55296;")
@example("caf\xc3\xa9 \ufeff")
@example("<\n&amp;")
@example("&amp;\n<&amp;\n&amp;")
@example("é»ａ “É”")
@settings(max_examples=400, deadline=None)
def test_a_text_is_repaired_as_by_ftfy(text: str) -> None:
    assert fix_text(text) == ftfy.fix_text(text, normalization="NFC")


@given(st.lists(MIXED, max_size=4), st.integers(0, 3), st.integers(0, 3))
@settings(max_examples=100, deadline=None)
def test_rows_are_repaired_each_for_itself_wherever_they_lie(texts: list[str], before: int, after: int) -> None:
    rows = pa.array(["“é&amp;"] * before + texts + ["Ã©\r"] * after, pa.large_string())
    assert repair(rows.slice(before, len(texts))).to_pylist() == by_ftfy(texts)


@given(MIXED, st.integers(1, 6))
@settings(max_examples=150, deadline=None)
def test_long_lines_are_cut_as_by_ftfy(text: str, longest: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "FIX", module.FIX._replace(max_decode_length=longest))
        assert fix_text(text) == ftfy.fix_text(text, module.FIX)


@given(st.text(st.characters(exclude_categories=["Cs"])))
@settings(deadline=None)  # the first call compiles
def test_repaired_text_is_composed(text: str) -> None:
    assert unicodedata.is_normalized("NFC", fix_text(text))


def test_text_that_needs_nothing_is_not_even_copied() -> None:
    texts = pa.array(["plain\ttext\n", "слово, كلمة; 漢字 — é\n", "a && b <c> & d"], pa.large_string())
    assert repair(texts) is texts


@pytest.mark.parametrize("context", ["{}", "a{}b", "{}\u0301", "é{}é", "{0}{0}\n<{0}"])
def test_every_character_of_a_kind_is_repaired_as_by_ftfy(context: str) -> None:
    texts = [context.format(character) for character in NAMED]
    assert repaired(texts) == by_ftfy(texts)


def test_every_other_character_is_one_that_ftfy_leaves_alone_by_itself_and_among_others() -> None:
    assert len(NAMED) + len(PLAIN) == CODE_POINTS - 0x800
    lines = ["".join(PLAIN[i : i + 1000]) for i in range(0, len(PLAIN), 1000)]
    shuffled = random.Random(0).sample(PLAIN, len(PLAIN))
    lines += [" ".join(shuffled[i : i + 1000]) for i in range(0, len(PLAIN), 1000)]
    assert by_ftfy(lines) == lines
    assert repaired(lines) == lines


def test_pairs_of_characters_of_mojibake_are_repaired_as_by_ftfy() -> None:
    chosen = random.Random(1)
    named = [c for c in NAMED if KINDS[ord(c)] & MOJIBAKE]
    texts = ["a{}{} {}b".format(*chosen.choices(named, k=3)) for _ in range(4000)]
    assert repaired(texts) == by_ftfy(texts)


# ---- what the scan builds on


def branches() -> Iterator[list[Any]]:
    """The alternatives of ftfy's pattern of mojibake, parsed: lists of (opcode, argument)."""
    ((opcode, (_, found)),) = parser.parse(BADNESS_RE.pattern, BADNESS_RE.flags)
    assert opcode is opcodes.BRANCH
    for alternative in found:
        yield list(alternative)


def codes(opcode: Any, argument: Any) -> set[int] | None:
    """The code points that one element matches; None if that is not a list of them."""
    if opcode is opcodes.LITERAL:
        return {argument}
    if opcode is not opcodes.IN or any(part is opcodes.NEGATE for part, _ in argument):
        return None
    found: set[int] = set()
    for part, value in argument:
        if part not in (opcodes.LITERAL, opcodes.RANGE):
            return None
        found |= {value} if part is opcodes.LITERAL else set(range(value[0], value[1] + 1))
    return found


def of_kind(kind: int) -> set[int]:
    return {int(code) for code in np.flatnonzero(KINDS & kind)}


def test_whatever_ftfy_may_call_mojibake_is_suspicious() -> None:
    """Each alternative of its pattern holds an ALONE character, or two neighbours that are suspicious together."""
    alone, named = of_kind(ALONE), of_kind(MOJIBAKE) | of_kind(LETTER)
    for alternative in branches():
        elements = [codes(*element) for element in alternative]
        neighbours = [(a, b) for a, b in itertools.pairwise(elements) if a and b]
        assert any(element and element <= alone for element in elements) or any(
            (a <= of_kind(one) and b <= other) or (b <= of_kind(one) and a <= other)
            for a, b in neighbours
            for one, other in ((TELLING, of_kind(MOJIBAKE)), (STRONG, named))
        ), alternative


def test_no_match_of_mojibake_is_longer_than_the_look_around_a_suspicious_place() -> None:
    _, longest = parser.parse(BADNESS_RE.pattern, BADNESS_RE.flags).getwidth()
    assert longest <= module._REACH
    assert not re.search(r"\(\?[=!<]|\$", BADNESS_RE.pattern), "a look-around would see beyond the match"


# ---- real text


@needs_raw
def test_lines_of_real_text_are_repaired_as_by_ftfy() -> None:
    root = RawRoot(str(RAW))
    for directory in sorted(path for path in Path(root.uri).iterdir() if path.is_dir()):
        files = root.files(directory.name, Source(files=(f"{directory.name}/*",)))
        texts = (str(record["text"]) for file in files for _, record in records(file) if isinstance(record, dict))
        lines = [
            line for text in texts for line in random.Random(len(text)).choices(text.splitlines(True) or [""], k=3)
        ]
        odd = [line for line in lines if not line.isascii() or "&" in line][:1500]
        assert repaired(odd) == by_ftfy(odd)
