"""The life of an entry, in one table.

    queued ─► planning ─► running(stage, done/total) ─► publishing ─► succeeded | failed | cancelled

An attempt that is lost (its Ray, its worker or its machine died) goes back to queued; so does what failed or was
cancelled and is asked for again, and what has succeeded when what it published is gone from the store.
"""

from __future__ import annotations

from typing import Literal

Kind = Literal["build", "run", "report"]
State = Literal["queued", "planning", "running", "publishing", "succeeded", "failed", "cancelled"]

NEXT: dict[State, frozenset[State]] = {
    "queued": frozenset({"planning", "failed", "cancelled"}),
    "planning": frozenset({"running", "queued", "failed", "cancelled"}),
    "running": frozenset({"publishing", "queued", "failed", "cancelled"}),
    "publishing": frozenset({"succeeded", "queued", "failed", "cancelled"}),
    "succeeded": frozenset({"queued"}),
    "failed": frozenset({"queued"}),
    "cancelled": frozenset({"queued"}),
}
ENDED: frozenset[State] = frozenset({"succeeded", "failed", "cancelled"})
ACTIVE: frozenset[State] = frozenset({"planning", "running", "publishing"})
ORDER: tuple[State, ...] = ("planning", "running", "publishing", "succeeded")
"""The way of an attempt that succeeds."""


def way(current: State, wanted: State) -> tuple[State, ...]:
    """The states to go through from `current` to `wanted`, both on the way of a success; `wanted` is the last.

    Empty if the entry is there already, or further. A work that re-uses everything may skip what it did not do.
    """
    start = ORDER.index(current) + 1 if current in ORDER else 0
    return ORDER[start : ORDER.index(wanted) + 1]
