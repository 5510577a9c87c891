"""Union-find over one array (components.py). Edges (E, 2) are flat."""

from dataproc.kernels.build import part
from dataproc.native import I64, U8


@part
def find(parent: I64, element: int) -> int:
    """The root of an element; halves the path to it on the way."""
    while parent[element] != element:
        parent[element] = parent[parent[element]]
        element = parent[element]
    return element


@part
def union(parent: I64, a: int, b: int) -> None:
    """Joins the components of two elements under the smaller root."""
    root_a, root_b = find(parent, a), find(parent, b)
    parent[max(root_a, root_b)] = min(root_a, root_b)


def join_buckets(parent: I64, members: I64, bounds: I64) -> int:
    """Connects all members of each bucket. Returns how many unions that took."""
    joined = 0
    for bucket in range(len(bounds) - 1):
        first = members[bounds[bucket]]
        for row in range(bounds[bucket] + 1, bounds[bucket + 1]):
            if find(parent, first) != find(parent, members[row]):
                union(parent, first, members[row])
                joined += 1
    return joined


def merge(parent: I64, ends: I64) -> int:
    """Connects the ends of every edge."""
    for edge in range(0, len(ends), 2):
        union(parent, ends[edge], ends[edge + 1])
    return 0


def joins(parent: I64, ends: I64, joined: U8) -> int:
    """joined[e] = 1 for the edges that, one after the other, join what was apart."""
    for edge in range(len(joined)):
        a, b = ends[2 * edge], ends[2 * edge + 1]
        joined[edge] = find(parent, a) != find(parent, b)
        union(parent, a, b)
    return 0


def flatten(parent: I64) -> int:
    """Makes every element's parent its root. One pass is enough: a parent is smaller than its child, hence already
    flat.
    """
    for element in range(len(parent)):
        parent[element] = parent[parent[element]]
    return 0
