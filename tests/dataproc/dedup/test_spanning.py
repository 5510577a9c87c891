"""A forest with levels against union-find over the edges themselves."""

from __future__ import annotations

import random

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from dataproc.dedup.spanning import LEVEL, PARENT, add, added, alone, components

ELEMENTS, LEVELS = 12, 4
element = st.integers(0, ELEMENTS - 1)
edges = st.lists(st.tuples(element, element, st.integers(1, LEVELS)), max_size=40)
Edges = list[tuple[int, int, int]]


def brute_force(found: Edges, level: int, elements: int = ELEMENTS) -> list[int]:
    """The smallest element of each one's component, of the edges of a level and above."""
    label = list(range(elements))
    for a, b, of_edge in found:
        if of_edge >= level:
            low, high = sorted((label[a], label[b]))
            label = [low if one == high else one for one in label]
    return label


def array(found: Edges) -> np.ndarray:
    return np.array(found, np.int64).reshape(-1, 3)


@settings(deadline=None)
@given(st.lists(edges, max_size=4))
def test_components_of_every_level_are_those_of_all_edges_so_far(batches: list[Edges]) -> None:
    forest = alone(ELEMENTS)
    so_far: Edges = []
    for batch in batches:
        add(forest, array(batch))
        so_far += batch
        for level in range(1, LEVELS + 1):
            assert components(forest, level).tolist() == brute_force(so_far, level)


@settings(deadline=None)
@given(edges, edges, edges)
def test_what_two_tasks_added_to_the_same_forest_makes_one(known: Edges, first: Edges, second: Edges) -> None:
    before = alone(ELEMENTS)
    add(before, array(known))
    merged = before.copy()
    for batch in (first, second):
        forest = before.copy()
        add(forest, array(batch))
        assert len(added(forest, before)) < ELEMENTS
        add(merged, added(forest, before))
    for level in range(1, LEVELS + 1):
        assert components(merged, level).tolist() == brute_force(known + first + second, level)


def test_paths_stay_short_whatever_the_order_of_the_edges() -> None:
    count = 20_000
    chain = [(i, i + 1, 1 + i % LEVELS) for i in range(count - 1)]
    for order in (chain, chain[::-1], random.Random(0).sample(chain, len(chain))):
        forest = alone(count)
        add(forest, array(order))
        assert (components(forest, 1) == 0).all()
        longest, at = 0, np.arange(count)
        while (forest[at, LEVEL] > 0).any():
            longest, at = longest + 1, forest[at, PARENT]
        assert longest < 64  # the chain itself is one of 20,000
