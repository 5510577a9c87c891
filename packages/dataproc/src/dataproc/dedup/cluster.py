"""Signatures → clusters: the connected components of all near-duplicates of a group of sources.

in:  signatures/<source>…, documents/<source>…
out: clusters/<group>: one row per document of a cluster of two or more (members.py)

    identical    equal cleaned texts are one document from here on
    candidates   who shares a band key with whom
    audit        a sample whose true near-duplicates are looked for with more effort
    evidence     the signatures and shingle sets of all these
    links        buckets → connected components
    members      components → rows

All data goes through scratch files in the draft (group.py); the driver holds a few numbers per document. Every task
leaves a note, so a killed build takes up where it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dataproc.dedup import audit
from dataproc.dedup.candidates import find_candidates
from dataproc.dedup.evidence import gather_evidence
from dataproc.dedup.group import CANDIDATES, Group, Matching, make_group, shard_pairs
from dataproc.dedup.identical import link_identical
from dataproc.dedup.links import link_all
from dataproc.dedup.members import write_members
from dataproc.stage import Draft, Made
from dataproc.workers import Workers

STAGE = "cluster/2"


def cluster(
    sources: Sequence[tuple[str, Sequence[Path], Sequence[Path]]], matching: Matching, *, workers: Workers, draft: Draft
) -> tuple[Made, Group]:
    """The stage, and the group with its scratch files. sources: (name, shards of documents, shards of signatures), in
    recipe order.
    """
    group = make_group(shard_pairs(sources), matching, workers=workers, draft=draft)
    repeats = link_identical(group, workers=workers, draft=draft)
    find_candidates(group, workers=workers, draft=draft)
    alike = audit.find_alike(group, workers=workers, draft=draft)
    if matching.verified:
        gather_evidence(group, CANDIDATES, workers=workers, draft=draft)
    forest, linked = link_all(group, workers=workers, draft=draft)
    audited = audit.measure(group, forest, alike, workers=workers, draft=draft)
    members = write_members(group, forest, workers=workers, draft=draft)
    s_curve = {f"{j / 100:.2f}": round(matching.bands.catch_probability(j / 100), 6) for j in range(50, 100, 5)}
    summary = {
        "documents": group.documents,
        **members.summary,
        "identical_links": repeats,
        **linked.model_dump(),
        "sampled": {
            name: {**share.model_dump(), "share": share.share}
            for name, share in (("precision", audited.precision), ("recall", audited.recall))
        },
        "bands": [matching.bands.count, matching.bands.rows],
        "s_curve": s_curve,
    }
    return Made(members.shards, summary), group
