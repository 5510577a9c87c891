"""The buckets of a group → one forest for every threshold and scope (pair_levels.py), in rounds of parallel tasks.

A round is some bands, one task per band and partition. A task knows what earlier rounds have connected, and leaves what
it adds, at most a link per element; the driver merges these. Rounds double in size: near-copies share nearly every
band, so after the first few there is little left to compare.

    beyond-BBB-PPPPP.npy   i64: the elements beyond the cap in a partition with hot buckets (scoped.py)
    forest-RRR.npy         (elements, 2) i64: before a round (spanning.py)
    links-BBB-PPPPP.npy    (E, 3) i64: what a task has added
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from dataproc.dedup.candidates import buckets_of
from dataproc.dedup.evidence import evidence_of
from dataproc.dedup.group import CANDIDATES, Group, mapped, save
from dataproc.dedup.links import BUCKET_CAP
from dataproc.dedup.pair_levels import Cuts, Earlier, Known, compare
from dataproc.dedup.scoped import Holders, beyond_cap, holders_of, scoped
from dataproc.dedup.spanning import add, added, alone
from dataproc.native import I64
from dataproc.stage import Draft
from dataproc.workers import Done, Workers
from manifest.record import Model


class Compared(Model):
    """What comparing took. capped_buckets: those of all sources together, or of one, in which not all was compared."""

    comparisons: int = 0
    exact_checks: int = 0
    largest_bucket: int = 0
    capped_buckets: int = 0

    def __add__(self, other: Compared) -> Compared:
        return Compared(
            comparisons=self.comparisons + other.comparisons,
            exact_checks=self.exact_checks + other.exact_checks,
            largest_bucket=max(self.largest_bucket, other.largest_bucket),
            capped_buckets=self.capped_buckets + other.capped_buckets,
        )


@dataclass(frozen=True)
class Round:
    """hot: the partitions (band, partition) that have buckets over the cap. cap: BUCKET_CAP, as the driver has it."""

    number: int
    thresholds: tuple[float, ...]
    hot: tuple[tuple[int, int], ...]
    cap: int


def level_all(
    group: Group, thresholds: Sequence[float], holders: Holders, *, workers: Workers, draft: Draft
) -> tuple[I64, Compared]:
    """The forest over the elements of `holders`, and what it took. thresholds: ascending."""
    forest_N2, total = alone(holders.elements), Compared()
    rounds = list(_doubling(group.matching.bands.count))
    hot = _find_hot(group, workers, draft)
    for number, bands in enumerate(rounds):
        save(_forest_file(group, number), forest_N2)
        tasks = [(band, partition) for band in bands for partition in range(group.partitions)]
        done = workers.map(
            partial(_level, group=group, turn=Round(number, tuple(thresholds), hot, BUCKET_CAP)),
            tasks,
            result=Compared,
            notes=draft.notes / f"levels-{number:03d}",
            label=f"comparisons, round {number + 1} of {len(rounds)}",
        )
        for band, partition in tasks:
            add(forest_N2, np.load(_links_file(group, band, partition)))
        total = sum(done, total)
    return forest_N2, total


def _find_hot(group: Group, workers: Workers, draft: Draft) -> tuple[tuple[int, int], ...]:
    """The partitions with buckets over the cap; writes what lies beyond it there."""
    numbers = range(group.matching.bands.count * group.partitions)
    largest = (int(buckets_of(group, number).sizes.max(initial=0)) for number in numbers)
    hot = tuple(divmod(number, group.partitions) for number, size in enumerate(largest) if size > BUCKET_CAP)
    task = partial(_write_beyond, group=group, cap=BUCKET_CAP)
    workers.map(task, hot, result=Done, notes=draft.notes / "beyond", label="hot buckets")
    return hot


def _write_beyond(task: tuple[int, int], *, group: Group, cap: int) -> Done:
    band, partition = task
    found = scoped(group, buckets_of(group, band * group.partitions + partition), holders_of(group), cap)
    save(_beyond_file(group, band, partition), beyond_cap(found, cap))
    return Done()


def _earlier(group: Group, band: int, hot: Sequence[tuple[int, int]]) -> Earlier:
    """What the bands before this one look at."""
    none: list[I64] = [np.zeros(0, np.int64)]
    files = [[_beyond_file(group, b, partition) for b, partition in hot if b == earlier] for earlier in range(band)]
    beyond = [np.sort(np.concatenate(none + [np.load(file) for file in of_band])) for of_band in files]
    starts = np.cumsum([0, *map(len, beyond)])
    return Earlier(group.matching.bands.rows, starts, np.concatenate(none + beyond))


def _doubling(count: int) -> Iterator[tuple[int, ...]]:
    """Bands 0; 1; 2, 3; 4 … 7; and so on."""
    first, size = 0, 1
    while first < count:
        yield tuple(range(first, min(first + size, count)))
        first, size = first + size, max(1, first + size)


def _level(task: tuple[int, int], *, group: Group, turn: Round) -> Compared:
    """One task: the links of a partition of a band."""
    band, partition = task
    matching, holders = group.matching, holders_of(group)
    found = buckets_of(group, band * group.partitions + partition)
    before_N2 = mapped(_forest_file(group, turn.number))
    forest_N2 = before_N2.copy()
    known = Known(
        evidence_of(group, CANDIDATES),
        Cuts.at(turn.thresholds, matching.permutations),
        holders,
        _earlier(group, band, turn.hot),
    )
    effort = compare(scoped(group, found, holders, turn.cap), known, forest_N2, cap=turn.cap)
    save(_links_file(group, band, partition), added(forest_N2, before_N2))
    return Compared(
        comparisons=effort.comparisons,
        exact_checks=effort.exact_checks,
        largest_bucket=int(found.sizes.max(initial=0)),
        capped_buckets=int((found.sizes > turn.cap).sum()),
    )


def _forest_file(group: Group, number: int) -> Path:
    return group.scratch / f"forest-{number:03d}.npy"


def _beyond_file(group: Group, band: int, partition: int) -> Path:
    return group.scratch / f"beyond-{band:03d}-{partition:05d}.npy"


def _links_file(group: Group, band: int, partition: int) -> Path:
    return group.scratch / f"links-{band:03d}-{partition:05d}.npy"
