from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from evalkit.buckets import buckets


def test_there_are_two_buckets_per_doubling() -> None:
    assert [bucket.stop for bucket in buckets(512, {128})] == [16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512]


def test_an_asked_length_takes_the_place_of_an_edge_nearby() -> None:
    assert [bucket.stop for bucket in buckets(512, {100, 250})] == [16, 24, 32, 48, 64, 100, 128, 192, 250, 384, 512]


@given(st.integers(2, 5000), st.sets(st.integers(2, 6000), max_size=4))
def test_buckets_have_every_position_once_and_end_at_every_length(longest: int, lengths: set[int]) -> None:
    found = buckets(longest, lengths)
    assert (found[0].first, found[-1].stop) == (1, longest)
    assert all(a.stop == b.first for a, b in pairwise(found))
    assert {length for length in lengths if length <= longest} <= {bucket.stop for bucket in found}
