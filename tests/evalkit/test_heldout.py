from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from evalkit import heldout as held
from manifest.artifact import Opened
from manifest.identity import hash64


def test_without_a_limit_all_held_out_documents_are_scored(heldout: Opened) -> None:
    found = list(held.documents(heldout, held.choose(heldout, None)))
    assert len(found) == heldout.manifest.model_dump()["summary"]["heldout"]
    assert held.choose(heldout, None) == {d.id: len(d.text.encode()) for d in found}


def test_a_limit_takes_the_smallest_hashes_of_each_source(heldout: Opened) -> None:
    everything = held.choose(heldout, None)
    chosen = held.choose(heldout, 3)
    for source in ("web", "code"):
        ids = [i for i in everything if i.startswith(f"{source}/")]
        assert {i for i in chosen if i.startswith(f"{source}/")} == set(sorted(ids, key=hash64)[:3])


def test_chosen_documents_come_in_the_order_in_which_they_were_chosen(heldout: Opened) -> None:
    chosen = held.choose(heldout, 4)
    assert [document.id for document in held.documents(heldout, chosen)] == list(chosen)


@given(st.lists(st.integers(1, 50), min_size=1), st.integers(1, 100))
def test_pieces_hold_all_documents_and_end_once_they_are_full(sizes: list[int], piece_bytes: int) -> None:
    counts = held.pieces({str(i): size for i, size in enumerate(sizes)}, piece_bytes)
    assert sum(counts) == len(sizes)
    first = 0
    for number, count in enumerate(counts):
        piece = sizes[first : first + count]
        assert sum(piece[:-1]) < piece_bytes
        assert sum(piece) >= piece_bytes or number == len(counts) - 1
        first += count
