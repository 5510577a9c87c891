"""Buckets → connected components of the candidates, as a forest (components.py).

Verified: in rounds. A task links the buckets of a partition, knowing what earlier rounds have connected; a round is a
band, or all bands where there is one partition. Not verified: the documents of a bucket are one component.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dataproc.dedup.buckets import Buckets
from dataproc.dedup.candidates import buckets_of
from dataproc.dedup.components import connect, join_buckets, labels
from dataproc.dedup.evidence import evidence_of
from dataproc.dedup.group import CANDIDATES, Group, mapped, save
from dataproc.dedup.pairs import link
from dataproc.dedup.sign import ids_of
from dataproc.stage import Draft
from dataproc.workers import Workers
from manifest.record import Model

BUCKET_CAP = 4096  # comparisons in a bucket grow with its square up to here, and linearly beyond


class Linked(Model):
    """What linking buckets did."""

    links: int = 0
    exact_checks: int = 0
    largest_bucket: int = 0
    capped_buckets: int = 0
    capped_pairs: int = 0

    def __add__(self, other: Linked) -> Linked:
        return Linked(
            links=self.links + other.links,
            exact_checks=self.exact_checks + other.exact_checks,
            largest_bucket=max(self.largest_bucket, other.largest_bucket),
            capped_buckets=self.capped_buckets + other.capped_buckets,
            capped_pairs=self.capped_pairs + other.capped_pairs,
        )


def link_all(group: Group, *, workers: Workers, draft: Draft) -> tuple[NDArray[np.int64], Linked]:
    """The forest over the candidates' places, and what it took."""
    parent = np.arange(len(group.candidates()), dtype=np.int64)
    if not group.matching.verified:
        return _join(group, parent)
    total = Linked()
    bands = range(group.matching.bands.count)
    rounds = [tuple(bands)] if group.partitions == 1 else [(band,) for band in bands]
    for number, of_round in enumerate(rounds):
        save(_components_file(group, number), labels(parent))
        done = workers.map(
            partial(_link, group=group, number=number, bands=of_round),
            range(group.partitions),
            result=Linked,
            notes=draft.notes / f"links-{number:03d}",
            label="links" if len(rounds) == 1 else f"links, band {number + 1} of {len(rounds)}",
        )
        edges = [np.load(_edges_file(group, number, partition)) for partition in range(group.partitions)]
        parent = connect(parent, np.concatenate(edges))
        total = sum(done, total)
    return parent, total


def edges_of(group: Group) -> NDArray[np.int64]:
    """The verified links that `link_all` made, (E, 2) by the candidates' places: a forest."""
    files = sorted(group.scratch.glob("edges-*.npy"))
    return np.concatenate([np.zeros((0, 2), np.int64), *(np.load(file) for file in files)])


def _link(partition: int, *, group: Group, number: int, bands: tuple[int, ...]) -> Linked:
    """One task: the edges of a partition."""
    evidence = evidence_of(group, CANDIDATES)
    component = mapped(_components_file(group, number))
    edges = np.zeros((0, 2), np.int64)
    total = Linked()
    for band in bands:
        buckets = _places(group, buckets_of(group, band * group.partitions + partition))
        links = link(buckets, evidence, component, threshold=group.matching.threshold, cap=BUCKET_CAP)
        edges = np.concatenate([edges, links.edges])
        if len(bands) > 1:  # there is one partition, which holds all documents anyway
            component = labels(connect(component, links.edges))
        total += Linked(
            links=len(links.edges),
            exact_checks=links.counters.exact_checks,
            largest_bucket=links.counters.largest_bucket,
            capped_buckets=links.counters.capped_buckets,
            capped_pairs=links.counters.capped_pairs,
        )
    save(_edges_file(group, number, partition), edges)
    return total


def _places(group: Group, buckets: Buckets) -> Buckets:
    """Members by their place among the candidates; those of a bucket over the cap in order of id, which decides who is
    compared.
    """
    members = np.searchsorted(group.candidates(), buckets.members)
    for bucket in np.flatnonzero(buckets.sizes > BUCKET_CAP):
        of_bucket = slice(*buckets.bounds[bucket : bucket + 2])
        members[of_bucket] = members[of_bucket][np.argsort(_ids(group, buckets.members[of_bucket]), kind="stable")]
    return Buckets(members, buckets.bounds)


def _ids(group: Group, docs: NDArray[np.int64]) -> NDArray[np.object_]:
    """The ids of some documents, ascending."""
    found: list[str] = []
    for pair in group.pairs:
        first, last = np.searchsorted(docs, [pair.first, pair.first + pair.rows])
        if first < last:
            found += ids_of(pair.signatures, docs[first:last] - pair.first).to_pylist()
    return np.array(found, object)


def _join(group: Group, parent: NDArray[np.int64]) -> tuple[NDArray[np.int64], Linked]:
    total = Linked()
    for number in range(group.matching.bands.count * group.partitions):
        found = buckets_of(group, number)
        members = np.searchsorted(group.candidates(), found.members)
        links = join_buckets(parent, members, found.bounds)
        total += Linked(links=links, largest_bucket=int(found.sizes.max(initial=0)))
    return parent, total


def _components_file(group: Group, number: int) -> Path:
    return group.scratch / f"components-{number:03d}.npy"


def _edges_file(group: Group, number: int, partition: int) -> Path:
    return group.scratch / f"edges-{number:03d}-{partition:05d}.npy"
