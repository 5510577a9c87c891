"""Documents and signatures → clusters → the ledger and what is held out → deduped documents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from dataproc.dedup import cluster, dedupe, holdout, holdout_position, ledger
from dataproc.dedup.evidence import claim, leave
from dataproc.dedup.links import BUCKET_CAP
from dataproc.pipeline.context import Artifacts, Context, Item, shards_of
from dataproc.stage import Draft, Input, Made, Request, summary_of
from manifest.artifact import Opened

HELD = "all"
"""The name of what is held out of all sources; recipes that differ in their phases share one."""


def all_clusters(context: Context, documents: Artifacts, signatures: Artifacts) -> Artifacts:
    """The clusters of every group, and of all sources together where whole clusters are held out."""
    groups = context.groups()
    if context.recipe.holds_out_by == "cluster":
        groups = {**groups, "global": list(context.recipe.sources)}
    return {
        group: _clusters(context, group, {n: documents[n] for n in names}, {n: signatures[n] for n in names})
        for group, names in groups.items()
    }


def _clusters(context: Context, group: str, documents: Artifacts, signatures: Artifacts) -> Item:
    dedup = context.recipe.dedup
    bands = dedup.banding

    def make(draft: Draft) -> Made:
        sources = _signed(documents, signatures, list(documents))
        made, found = cluster.cluster(sources, context.matching, workers=context.build.workers, draft=draft)
        _check_clusters(context, group, made.summary)
        if context.matching.verified and group in context.groups():
            leave(found, draft.left)
        return made

    banding = {"bands": bands.count, "rows": bands.rows, "cap": BUCKET_CAP}
    config = {**context.shingles, **banding, "threshold": dedup.threshold, "verify": dedup.verify}
    inputs = {f"signatures/{n}": item for n, item in signatures.items()}
    made = context.build.make(Request("clusters", group, cluster.STAGE, config, inputs), make)
    if isinstance(made, Opened):  # also where it was published under a laxer gate
        _check_clusters(context, group, summary_of(made))
    return made


def _check_clusters(context: Context, group: str, summary: Mapping[str, Any]) -> None:
    context.gates.check_cluster(group, summary)
    context.gates.check_precision(group, summary)


def _signed(
    documents: Artifacts, signatures: Artifacts, names: Sequence[str]
) -> list[tuple[str, list[Path], list[Path]]]:
    """(name, shards of documents, shards of signatures) of some sources."""
    return [(n, shards_of(documents[n], "documents"), shards_of(signatures[n], "signatures")) for n in names]


def ledger_of(context: Context, group: str, clusters: Item, documents: Artifacts, signatures: Artifacts) -> Item:
    """What a group loses to its near-duplicates."""
    dedup = context.recipe.dedup
    names = context.groups()[group]

    def make(draft: Draft) -> Made:
        assert isinstance(clusters, Opened)
        return ledger.ledger(
            shards_of(clusters, "clusters"),
            _signed(documents, signatures, names),
            keep=dedup.keep,
            matching=context.matching,
            evidence=claim(draft.left_by(clusters), context.matching, draft=draft),
            workers=context.build.workers,
            draft=draft,
        )

    config = {**context.shingles, "keep": context.keep, "sources": names}
    inputs = {"clusters": clusters, **{f"documents/{n}": documents[n] for n in names}}
    return context.build.make(Request("ledger", group, ledger.STAGE, config, inputs), make)


def heldout(context: Context, clusters: Item | None, ledgers: Artifacts, documents: Artifacts) -> Item | None:
    """What is held out of training; None if nothing is."""
    by = context.recipe.holds_out_by
    if by is None:
        return None
    sources = list(documents)
    config = {**context.recipe.holdout.model_dump(exclude={"by"}), "sources": sources}
    inputs: dict[str, Input] = {f"documents/{n}": item for n, item in documents.items()}
    if by == "position":
        min_chars = {name: context.min_chars_last(name) for name in sources}
        config |= {"min_chars": min_chars}
        inputs |= {f"ledger/{group}": item for group, item in ledgers.items()}
        request = Request("heldout", HELD, holdout_position.STAGE, config, inputs)
        return context.build.make(request, partial(_hold_by_position, context, ledgers, documents, min_chars))
    assert clusters is not None
    config |= {"keep": context.keep}
    inputs |= {"clusters": clusters}
    request = Request("heldout", HELD, holdout.STAGE, config, inputs)
    return context.build.make(request, partial(_hold_by_cluster, context, clusters, documents))


def _hold_by_position(
    context: Context, ledgers: Artifacts, documents: Artifacts, min_chars: dict[str, int], draft: Draft
) -> Made:
    return holdout_position.holdout(
        [shard for item in ledgers.values() for shard in shards_of(item, "ledger")],
        [(name, shards_of(item, "documents")) for name, item in documents.items()],
        config=context.recipe.holdout,
        min_chars=min_chars,
        workers=context.build.workers,
        draft=draft,
    )


def _hold_by_cluster(context: Context, clusters: Item, documents: Artifacts, draft: Draft) -> Made:
    return holdout.holdout(
        shards_of(clusters, "clusters"),
        [(name, shards_of(item, "documents")) for name, item in documents.items()],
        config=context.recipe.holdout,
        keep=context.recipe.dedup.keep,
        workers=context.build.workers,
        draft=draft,
    )


def deduped(
    context: Context,
    name: str,
    documents: Item,
    ledgers: Artifacts,
    heldout: Item | None,
    contaminated: Item | None = None,
) -> Item:
    """What is left of a source. Raises DataError if that is too little.

    A source in which nothing is contaminated is as it would be without evaluation sets.
    """
    if isinstance(contaminated, Opened) and not any(summary_of(contaminated)["sources"][name].values()):
        contaminated = None
    min_chars = context.min_chars_last(name)
    removals = next((ledgers[group] for group, names in context.groups().items() if name in names), None)
    inputs: dict[str, Input] = {"documents": documents}
    if removals is not None:
        inputs["ledger"] = removals
    if heldout is not None:
        inputs["heldout"] = heldout
    if contaminated is not None:
        inputs["contaminated"] = contaminated

    def make(draft: Draft) -> Made:
        lists = shards_of(removals, "ledger") if removals else []
        if heldout:
            lists += shards_of(heldout, "places")
        shards = shards_of(documents, "documents")
        made = dedupe.dedupe(
            name,
            shards,
            lists,
            contaminated=shards_of(contaminated, "contaminated") if contaminated else None,
            min_chars=min_chars,
            workers=context.build.workers,
            draft=draft,
        )
        context.gates.check_loss(name, summary_of(documents), made.summary)
        return made

    config = {"source": name, "min_chars": min_chars}
    made = context.build.make(Request("deduped", name, dedupe.STAGE, config, inputs), make)
    if isinstance(made, Opened):
        context.gates.check_loss(name, summary_of(documents), summary_of(made))
    return made
