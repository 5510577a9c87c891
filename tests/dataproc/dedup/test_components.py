"""Components against breadth-first search."""

from collections import deque

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataproc.dedup.components import connect, labels

N = 12
edge_lists = st.lists(st.tuples(st.integers(0, N - 1), st.integers(0, N - 1)), max_size=20)


def as_array(edges: list[tuple[int, int]]) -> np.ndarray:
    return np.array(edges, np.int64).reshape(-1, 2)


def smallest_reachable(edges: list[tuple[int, int]]) -> list[int]:
    neighbours: dict[int, set[int]] = {node: set() for node in range(N)}
    for a, b in edges:
        neighbours[a].add(b)
        neighbours[b].add(a)

    def reach(node: int) -> set[int]:
        seen, queue = {node}, deque([node])
        while queue:
            fresh = neighbours[queue.popleft()] - seen
            seen |= fresh
            queue.extend(fresh)
        return seen

    return [min(reach(node)) for node in range(N)]


@settings(deadline=None, max_examples=300)
@given(edge_lists)
def test_labels_are_the_smallest_reachable_element(edges: list[tuple[int, int]]) -> None:
    assert labels(connect(np.arange(N), as_array(edges))).tolist() == smallest_reachable(edges)


@settings(deadline=None)
@given(edge_lists, edge_lists, st.randoms())
def test_edges_may_come_in_any_order_and_in_batches(first, second, random) -> None:  # type: ignore[no-untyped-def]
    at_once = connect(np.arange(N), as_array(first + second))
    shuffled = random.sample(second, len(second))
    batched = connect(connect(np.arange(N), as_array(shuffled)), as_array(first))
    assert labels(batched).tolist() == labels(at_once).tolist()


def test_connect_leaves_its_input_alone() -> None:
    parent = np.arange(3)
    connect(parent, np.array([[0, 1], [1, 2]]))
    assert parent.tolist() == [0, 1, 2]


def test_a_long_chain_collapses() -> None:
    count = 100_000
    chain = np.stack([np.arange(count - 1), np.arange(1, count)], axis=1)[::-1]
    assert not labels(connect(np.arange(count), chain)).any()


def test_an_edge_out_of_range_is_refused() -> None:
    with pytest.raises(ValueError, match="3 elements"):
        connect(np.arange(3), np.array([[0, 3]]))
