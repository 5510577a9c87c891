"""How good a build's clusters are, measured on samples by their shingle sets: by as much of these as can tell.

    recall      A sample of documents is compared with all others that share a key with them in bands so dense that they
                miss one pair in 10⁵ at the threshold. Of the pairs found with J ≥ threshold: the share whose ends are
                in one cluster.
    precision   Of a sample of documents that are in a cluster with another text: the share that has J ≥ threshold with
                some document that it shares a band with: some neighbours in its buckets and, where links are verified,
                those that it was linked to. (Then this checks the code rather than the data.)

Documents are sampled by a hash of their text; of equal texts the first stands for all.

    sample ─► dense keys ─► pairs (sampled, other) ──┐
    clusters ─► sample ─► buckets ─► pairs ──────────┴─► J ≥ threshold? ─► the two shares
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dataproc.dedup.band_keys import band_keys
from dataproc.dedup.bands import Bands, verified_bands
from dataproc.dedup.buckets import is_among
from dataproc.dedup.candidates import buckets_of
from dataproc.dedup.components import labels
from dataproc.dedup.evidence import are_near, gather_evidence
from dataproc.dedup.group import CANDIDATES, Group, ShardPair, save
from dataproc.dedup.links import edges_of
from dataproc.dedup.minhash import is_signed
from dataproc.dedup.sign import column_of, minima_of
from dataproc.stage import Draft
from dataproc.workers import Done, Workers
from manifest.record import Model

SAMPLE = 1000
MOST_ALIKE = 50
"""Of the documents of a shard that share a key with a sampled one so many are taken; of all that are taken, those that
share the most keys are compared, so many again.
"""
MATES = 10
"""Of a bucket, so many documents before a sampled one, and after it, are taken."""
DENSE_RECALL = 1 - 1e-5
AUDITED = "audited"

Pairs = NDArray[np.int64]
"""(E, 2): a sampled document, another."""


class Share(Model):
    """A share that was measured: `good` of `sampled`; None of nothing."""

    good: int
    sampled: int

    @property
    def share(self) -> float | None:
        return round(self.good / self.sampled, 6) if self.sampled else None


class Audit(Model):
    """What a build says of itself."""

    precision: Share
    recall: Share


def find_alike(group: Group, *, workers: Workers, draft: Draft) -> Pairs:
    """The sampled documents and those that may be like them; they become candidates, so that their sets are read."""
    limit = min(1.0, SAMPLE / max(1, group.documents))
    workers.map(
        partial(_sample, group=group, limit=limit), group.pairs, result=Done, notes=draft.notes / "audit", label="audit"
    )
    save(group.scratch / "audit-keys.npy", _concatenated(group, "sample", (0, 1 + _dense(group).count)))
    alike = partial(_alike, group=group)
    workers.map(alike, group.pairs, result=Done, notes=draft.notes / "alike", label="audit: recall")
    pairs_E2 = _most_alike(_concatenated(group, "alike", (0, 3)))
    if group.matching.verified:
        save(group.scratch / f"{CANDIDATES}.npy", np.union1d(group.candidates(), pairs_E2))
    return pairs_E2


def measure(group: Group, forest: NDArray[np.int64], alike_E2: Pairs, *, workers: Workers, draft: Draft) -> Audit:
    """forest: of the candidates, all links done."""
    near_E2 = _bucket_mates(group, labels(forest), workers=workers, draft=draft)
    if group.matching.verified:
        near_E2, _ = _distinct(np.concatenate([near_E2, _linked(group)]))
    listing = CANDIDATES if group.matching.verified else AUDITED
    if listing == AUDITED:
        save(group.scratch / f"{AUDITED}.npy", np.unique(np.concatenate([near_E2, alike_E2])))
        gather_evidence(group, AUDITED, workers=workers, draft=draft)
    precise = near_E2[are_near(group, listing, near_E2)]
    true_E2 = alike_E2[are_near(group, listing, alike_E2)]
    root = _roots(group, labels(forest), true_E2)
    return Audit(
        precision=Share(good=len(np.unique(precise[:, 0])), sampled=len(np.unique(near_E2[:, 0]))),
        recall=Share(good=int((root[:, 0] == root[:, 1]).sum()), sampled=len(true_E2)),
    )


# ---- who may be like a sampled document


def _dense(group: Group) -> Bands:
    """Bands that catch all but one in 10⁵ of the pairs at the threshold, or as many as there can be."""
    matching = group.matching
    try:
        return verified_bands(matching.threshold, matching.permutations, DENSE_RECALL)
    except ValueError:
        return Bands(matching.permutations, 1)


def _sample(pair: ShardPair, *, group: Group, limit: float) -> Done:
    """One task: the sampled documents of a shard with their dense keys, one row each."""
    rows = _firsts(pair, group)
    rows = rows[_is_sampled(pair, rows, limit)]
    minima_ND = minima_of(pair.minima)[rows]
    signed = is_signed(minima_ND)
    keys_NB = band_keys(minima_ND[signed], _dense(group))
    docs = (pair.first + rows[signed]).astype(np.uint64)
    save(_file(group, "sample", pair), np.column_stack([docs, keys_NB]))
    return Done()


def _firsts(pair: ShardPair, group: Group) -> NDArray[np.int64]:
    """The rows of a shard that are the first document of their text."""
    return np.flatnonzero(group.firsts()[pair.first : pair.first + pair.rows] == pair.numbers)


def _is_sampled(pair: ShardPair, rows: NDArray[np.int64], limit: float) -> NDArray[np.bool_]:
    """By the upper half of the text's hash; partitions go by the lower."""
    high = column_of(pair.signatures, "text_hash", "<u8", 2)[rows, 1]
    return np.asarray(high <= np.uint64(min(2**64 - 1, int(limit * 2**64))))


def _alike(pair: ShardPair, *, group: Group) -> Done:
    """One task: the documents of a shard that share a dense key with a sampled one: (sample, document, shared keys)."""
    rows = _firsts(pair, group)
    sample = np.load(group.scratch / "audit-keys.npy", mmap_mode="r")
    keys_NB = band_keys(minima_of(pair.minima)[rows], _dense(group))
    found = [np.zeros((0, 2), np.int64)]
    for band, keys in enumerate(keys_NB.T):
        of_sample = np.ascontiguousarray(sample[:, 1 + band])
        hits = np.flatnonzero(is_among(keys, of_sample))
        hits = hits[np.argsort(keys[hits], kind="stable")]
        first = np.searchsorted(keys[hits], of_sample)
        counts = np.minimum(np.searchsorted(keys[hits], of_sample, side="right") - first, MOST_ALIKE)
        nth = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        others = pair.first + rows[hits[np.repeat(first, counts) + nth]]
        found.append(np.column_stack([np.repeat(sample[:, 0].astype(np.int64), counts), others]))
    all_E2 = np.concatenate(found)
    pairs_E2, shared = _distinct(all_E2[all_E2[:, 0] != all_E2[:, 1]])
    save(_file(group, "alike", pair), np.column_stack([pairs_E2, shared]))
    return Done()


def _distinct(pairs_E2: Pairs) -> tuple[Pairs, NDArray[np.int64]]:
    """Pairs in order, each once, and how often each came."""
    base = int(pairs_E2.max(initial=0)) + 1  # a pair is one number: documents are fewer than 3 · 10⁹
    numbers, counts = np.unique(pairs_E2[:, 0] * base + pairs_E2[:, 1], return_counts=True)
    return np.stack(np.divmod(numbers, base), axis=1), counts


def _most_alike(alike_E3: NDArray[np.int64]) -> Pairs:
    """(document, other, how alike) → the pairs that are the most alike of each document."""
    order = np.lexsort((alike_E3[:, 1], -alike_E3[:, 2], alike_E3[:, 0]))
    ordered = alike_E3[order]
    starts = np.searchsorted(ordered[:, 0], ordered[:, 0])
    return ordered[np.arange(len(ordered)) - starts < MOST_ALIKE, :2]


# ---- who shares a bucket with a document of a cluster


def _bucket_mates(group: Group, root: NDArray[np.int64], *, workers: Workers, draft: Draft) -> Pairs:
    """Documents sampled from clusters of two texts or more, each with some of those that it shares a band with."""
    sizes = np.bincount(root, minlength=len(root))
    save(group.scratch / "clustered.npy", group.candidates()[sizes[root] > 1])
    limit = min(1.0, SAMPLE / max(1, len(group.listed("clustered"))))
    task = partial(_sample_clustered, group=group, limit=limit)
    workers.map(task, group.pairs, result=Done, notes=draft.notes / "clustered", label="audit: precision")
    save(group.scratch / "precision.npy", _concatenated(group, "clustered", (0,)))
    numbers = range(group.matching.bands.count * group.partitions)
    mates = partial(_mates, group=group)
    workers.map(mates, numbers, result=Done, notes=draft.notes / "mates", label="audit: precision")
    found = np.concatenate([np.zeros((0, 2), np.int64), *(np.load(_mates_file(group, n)) for n in numbers)])
    pairs_E2, counts = _distinct(found)
    return _most_alike(np.column_stack([pairs_E2, counts]))


def _sample_clustered(pair: ShardPair, *, group: Group, limit: float) -> Done:
    """One task: the sampled documents of a shard."""
    clustered = group.listed("clustered")
    first, last = np.searchsorted(clustered, [pair.first, pair.first + pair.rows])
    rows = clustered[first:last] - pair.first
    save(_file(group, "clustered", pair), pair.first + rows[_is_sampled(pair, rows, limit)])
    return Done()


def _mates(number: int, *, group: Group) -> Done:
    """One task: the pairs (sampled, other) of the buckets of a partition."""
    members, bounds = buckets_of(group, number)
    at = np.flatnonzero(np.isin(members, group.listed("precision")))
    bucket = np.searchsorted(bounds, at, side="right") - 1
    steps = np.array([step for step in range(-MATES, MATES + 1) if step])
    other = at[:, None] + steps
    inside = (other >= bounds[bucket][:, None]) & (other < bounds[bucket + 1][:, None])
    which, _ = np.nonzero(inside)
    save(_mates_file(group, number), np.column_stack([members[at[which]], members[other[inside]]]))
    return Done()


def _linked(group: Group) -> Pairs:
    """The sampled documents, each with those that it was linked to: in a hot bucket they may be far from it."""
    edges_E2 = group.candidates()[edges_of(group)]
    both_E2 = np.concatenate([edges_E2, edges_E2[:, ::-1]])
    return both_E2[np.isin(both_E2[:, 0], group.listed("precision"))]


def _mates_file(group: Group, number: int) -> Path:
    return group.scratch / f"audit-mates-{number:06d}.npy"


# ---- measuring


def _roots(group: Group, root: NDArray[np.int64], pairs_E2: Pairs) -> NDArray[np.int64]:
    """The component of each end; a document that is no candidate is one of its own."""
    candidates = group.candidates()
    places_E2 = np.minimum(np.searchsorted(candidates, pairs_E2), max(0, len(candidates) - 1))
    is_candidate = candidates[places_E2] == pairs_E2 if len(candidates) else np.zeros(pairs_E2.shape, np.bool_)
    return np.where(is_candidate, root[places_E2] if len(root) else -1, -1 - pairs_E2)


def _file(group: Group, what: str, pair: ShardPair) -> Path:
    return group.scratch / f"audit-{what}-{pair.first}.npy"


def _concatenated(group: Group, what: str, shape: tuple[int, ...]) -> NDArray[np.int64]:
    """What the tasks of all shards wrote. shape: of nothing."""
    arrays = [np.load(_file(group, what, pair)) for pair in group.pairs]
    return np.concatenate(arrays) if arrays else np.zeros(shape, np.int64)
