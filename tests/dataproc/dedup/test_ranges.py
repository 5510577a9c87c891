"""Sets that are made range by range against those that are made at once."""

import random
from typing import Literal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataproc.dedup import ranges
from dataproc.dedup.ranges import LongText, set_parts
from dataproc.dedup.shingles import Shingling, by_size, shingle_sets
from dataproc.kernels.scratch import HASHES

UNITS: list[Literal["char", "word"]] = ["char", "word"]
words = st.text(st.sampled_from("abAB.é́語😀Σİ"), min_size=1, max_size=4)
# What is drawn is repeated, so that hashes come again, and the text is longer than what is hashed in one go.
texts = st.builds(lambda drawn, times: " ".join(drawn * times), st.lists(words, max_size=80), st.integers(1, 60))
shinglings = st.builds(Shingling, st.sampled_from(UNITS), st.integers(1, 13))


def one(text: str) -> pa.Array:
    return pa.array([text], pa.large_string())


@settings(deadline=None, max_examples=100)
@given(texts, shinglings, st.integers(1, 7))
def test_parts_end_to_end_are_the_set(text: str, shingling: Shingling, count: int) -> None:
    parts = [part.copy() for part in LongText(one(text), shingling).parts(count)]
    assert np.concatenate(parts).tolist() == shingle_sets(one(text), shingling).hashes.tolist()
    assert all(int(h) * count >> 64 == number for number, part in enumerate(parts) for h in part)


@pytest.mark.parametrize("unit", UNITS)
def test_a_text_is_cut_by_how_many_hashes_it_has(
    unit: Literal["char", "word"], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = " ".join(f"{random.Random(0).random()}{word}" for word in range(20_000))
    monkeypatch.setattr(ranges, "PART_BYTES", 100_000)
    shingling = Shingling(unit, 5)
    parts = [part.copy() for part in set_parts(one(text), shingling)]
    assert len(parts) == (8 if unit == "char" else 1)  # 8 bytes a character, or a word, against those of the text
    assert np.concatenate(parts).tolist() == shingle_sets(one(text), shingling).hashes.tolist()


def test_a_text_that_repeats_itself_has_few_hashes() -> None:
    shingling = Shingling("char", 13)
    (part,) = LongText(one("ab" * 500_000), shingling).parts(1)
    assert part.tolist() == shingle_sets(one("ab" * 20), shingling).hashes.tolist()


def test_where_hashes_fall_close_together_more_room_is_made() -> None:
    text = one("".join(random.Random(1).choices("abcdefghij ", k=50_000)))
    shingling = Shingling("char", 13)
    everything = np.array([0, 2**64 - 1], np.uint64)
    room, size = LongText(text, shingling)._between(everything, np.empty(8 * HASHES, np.uint64))
    assert room[:size].tolist() == shingle_sets(text, shingling).hashes.tolist()


@given(st.lists(st.integers(0, 20_000_000), max_size=20))
def test_ranges_by_size_cover_all_rows_and_leave_long_ones_alone(sizes: list[int]) -> None:
    ranges_ = list(by_size(np.array(sizes, np.int64)))
    assert [row for first, end in ranges_ for row in range(first, end)] == list(range(len(sizes)))
    assert all(end - first == 1 or sum(sizes[first:end]) <= 8_000_000 for first, end in ranges_)
