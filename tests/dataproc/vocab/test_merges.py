"""New merges are those of a training that counts everything anew for each, and they may touch one script only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from fontTools.unicodedata import script
from hypothesis import given, settings
from hypothesis import strategies as st

from dataproc.vocab.joining import Joining
from dataproc.vocab.merges import MISSING, Merging, Words
from dataproc.vocab.scripts import code_of, members, opens, pattern

DATA = {0: b"a", 1: b"b", 2: b"ab", 3: b"c", 4: b"d"}
Word = tuple[int, ...]
Allows = Callable[[bytes, bytes], bool]


def words_of(counts: dict[Word, int]) -> Words:
    rows = list(counts.items())
    symbols = np.array([symbol for word, _ in rows for symbol in word], np.int32)
    lengths = np.array([len(word) for word, _ in rows], np.int64)
    return Words(symbols, lengths, np.array([count for _, count in rows], np.int64))


def naive(counts: dict[Word, int], add: int, allows: Allows) -> tuple[list[tuple[int, int]], dict[int, int]]:
    """The pairs that are merged, and how often each new token is used at the end."""
    data, taken = dict(DATA), set(DATA.values())
    words = [(list(word), count) for word, count in counts.items()]
    made = []
    for number in range(100, 100 + add):
        found: Counter[tuple[int, int]] = Counter()
        for word, count in words:
            for left, right in pairwise(word):
                both = data.get(left, b"?") + data.get(right, b"?")
                if left in data and right in data and both not in taken and allows(data[left], data[right]):
                    found[left, right] += count
            for symbol in word:
                if symbol >= MISSING:
                    found[symbol, -1] += count * (len(chr(symbol - MISSING).encode()) - 1)
        best = min(((-count, pair) for pair, count in found.items() if count > 1), default=None)
        if best is None:
            break
        left, right = best[1]
        data[number] = chr(left - MISSING).encode() if right < 0 else data[left] + data[right]
        taken.add(data[number])
        made.append((left, right))
        words = [(replaced(word, left, right, number), count) for word, count in words]
    used = Counter({100 + n: 0 for n in range(len(made))})
    for word, count in words:
        used.update({symbol: count * word.count(symbol) for symbol in set(word) if symbol in used})
    return made, dict(used)


def replaced(word: list[int], left: int, right: int, number: int) -> list[int]:
    made: list[int] = []
    place = 0
    while place < len(word):
        if right < 0 and word[place] == left:
            made.append(number)
        elif right >= 0 and word[place : place + 2] == [left, right]:
            made.append(number)
            place += 1
        else:
            made.append(word[place])
        place += 1
    return made


symbols = st.sampled_from([0, 0, 1, 2, 3, 4, MISSING + ord("ا"), MISSING + ord("ب"), MISSING + ord("漢")])
counted = st.dictionaries(
    st.lists(symbols, min_size=1, max_size=9).map(tuple), st.integers(1, 9), min_size=1, max_size=9
)


@settings(deadline=None)
@given(counted, st.integers(1, 12))
def test_merges_are_those_of_a_naive_training_with_the_same_ties(counts: dict[Word, int], add: int) -> None:
    def allows(left: bytes, right: bytes) -> bool:
        return left + right != b"cd"

    merging = Merging(words_of(counts), dict(DATA), set(DATA.values()), allows)
    new = list(merging.learn(range(100, 100 + add)))
    made, used = naive(counts, add, allows)
    assert [(token.left, token.right) for token in new] == made
    assert dict(zip(used, merging.uses(list(used)), strict=True)) == used


@pytest.mark.parametrize(
    ("left", "right", "by_kind", "allowed"),
    [
        (b"\xd8", b"\xa7", False, True),  # a letter of two bytes
        (b" ", "ا".encode(), False, True),
        (b" ", b"\xd8", False, False),  # a space and a part of a letter
        (" ا".encode(), b"\xd9", False, False),
        (b" \xd8", b"\xa7", False, True),  # where the base has such a token
        (b"\xc3", b"\xa9", False, False),  # é
        (b"a", "ا".encode(), False, False),
        ("ا".encode(), b" ", False, False),
        ("ا".encode(), "،".encode(), False, True),
        ("ا".encode(), "،".encode(), True, False),
        ("ا".encode(), "\u064e".encode(), True, True),  # marks go with letters
        (b"\xa7", b"\xd8", False, False),
        (b"\xd8\xa7"[1:], "ا".encode(), False, False),  # what ends some character, of any script
        (b".", "ا".encode(), False, False),
    ],
)
def test_which_tokens_become_one_in_arabic(left: bytes, right: bytes, by_kind: bool, allowed: bool) -> None:
    assert Joining(("Arab",), by_kind).allows(left, right) is allowed


@pytest.fixture(scope="module")
def heads() -> dict[bytes, list[int]]:
    """The beginnings of the characters that Unicode has, and how they may go on."""
    found: dict[bytes, list[int]] = {}
    for point in range(0x110000):
        if script(chr(point)) != "Zzzz":
            data = chr(point).encode()
            for length in range(1, len(data)):
                found.setdefault(data[:length], []).append(point)
    return found


@pytest.mark.parametrize("name", ["Arabic", "Devanagari", "Thai", "Georgian", "Han", "Ethiopic", "Adlam"])
def test_a_beginning_is_of_a_script_if_all_that_go_on_from_it_are(name: str, heads: dict[bytes, list[int]]) -> None:
    code = (code_of(name),)
    own = members(code)
    assert [head for head, points in heads.items() if opens(head, code) != bool(own[points].all())] == []


@pytest.mark.parametrize(
    ("character", "of", "is_one"),
    [
        ("ا", "Arabic", True),
        ("،", "Arabic", True),
        ("٣", "Arabic", True),
        ("\u0640", "Arabic", True),
        ("ܐ", "Arabic", False),
        ("\u00b7", "Greek", False),  # the middle dot
        ("\u0301", "Cyrillic", False),  # the acute
        ("।", "Devanagari", True),
        ("\u0951", "Devanagari", True),
        ("฿", "Thai", True),
        ("$", "Latin", False),
    ],
)
def test_marks_digits_and_punctuation_of_a_script_belong_to_it(character: str, of: str, is_one: bool) -> None:
    assert bool(members((code_of(of),))[ord(character)]) is is_one
    assert bool(pattern((code_of(of),)).search(f"1{character}2")) is is_one
