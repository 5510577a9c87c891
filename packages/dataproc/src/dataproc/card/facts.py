"""A mixture and what it was made from → the record of its data card."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from dataproc.card.leaks import decontamination
from dataproc.card.record import Card, Draw, PhaseCard, Removed, Retention, SourceCard, StreamCard
from dataproc.card.similarity import divergences
from dataproc.dedup.overlap import overlap
from dataproc.documents import batches
from dataproc.licences import capped, counted
from dataproc.samples import removed_samples, upstream
from dataproc.stage import shard_files, summary_of
from manifest.artifact import Opened, open_streams
from manifest.mixture import Mixture, View

SAMPLES = 6
EXCERPT_CHARS = 320


def gather_card(mixture: Opened) -> Card:
    """Raises ArtifactError if something that the mixture was made from is gone or changed."""
    made = mixture.manifest
    assert isinstance(made, Mixture)
    stages = upstream(mixture)
    by_source = {(item.manifest.kind, item.manifest.name): item for item in reversed(stages)}  # the nearest wins
    counted: Mapping[str, Mapping[str, int]] = made.summary["sources"]
    rows = {name: row for name, row in counted.items() if ("deduped", name) in by_source}  # others are not in it
    return Card(
        name=made.name,
        id=made.id,
        tokens=made.tokens,
        documents=sum(row["kept"] for row in rows.values()),
        vocab_size=made.tokenizer.vocab_size,
        tokenizer=made.tokenizer.digest,
        block_tokens=made.block_tokens,
        sources=tuple(_source(name, row, by_source) for name, row in rows.items()),
        streams=_streams(made),
        phases=_phases(made),
        dedup=_dedup(made.config["dedup"]),
        heldout=sum(row["heldout"] for row in rows.values()),
        overlap=overlap([mixture.uri]) if len(rows) > 1 and "global" in made.summary["clusters"] else None,
        divergences=divergences(open_streams(mixture), made.tokenizer.vocab_size),
        removed=(*_duplicates(mixture), *_unreadable(stages)),
        overridden=tuple(made.summary.get("overridden", ())),
        decontamination=decontamination(mixture),
    )


def _source(name: str, row: Mapping[str, int], stages: Mapping[tuple[str, str], Opened]) -> SourceCard:
    documents, deduped = stages["documents", name], stages["deduped", name]
    counts = {key: row[key] for key in Retention.model_fields if key in row}
    sizes = {"bytes_in": int(summary_of(documents)["text_bytes"]), "bytes_kept": row["text_bytes"]}
    return SourceCard(name=name, licences=licences(deduped), retention=Retention(**counts, **sizes))


def licences(deduped: Opened) -> dict[str, int]:
    """The licences that documents name, and "" for those that name none; most frequent first."""
    found: Counter[str] = Counter()
    for shard in shard_files(deduped, "documents"):
        for batch in batches(shard, ["meta"]):
            found = capped(found + counted(batch["meta"]))
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))


def _streams(mixture: Mixture) -> tuple[StreamCard, ...]:
    first = {view.stream: view for view in reversed(mixture.views.values())}
    return tuple(
        StreamCard(
            name=name,
            source=first[name].of,
            choice=choice_of(first[name]),
            tokens=stream.tokens,
            documents=stream.documents,
            epochs=mixture.summary["epochs"][name],
        )
        for name, stream in mixture.streams.items()
    )


def choice_of(view: View) -> str:
    """Which documents of its source a stream has, in words; empty if all, as they are."""
    parts = [f"{field} in {', '.join(map(str, wanted))}" for field, wanted in view.where.items()]
    if view.part is not None:
        parts.append(view.part if isinstance(view.part, str) else f"hash in [{view.part[0]:g}, {view.part[1]:g})")
    if view.template is not None:
        parts.append(f"template {view.template}")
    return "; ".join(parts)


def _phases(mixture: Mixture) -> tuple[PhaseCard, ...]:
    found = []
    for phase in mixture.phases:
        draws = tuple(
            Draw(
                view=name,
                stream=mixture.views[name].stream,
                fim=mixture.views[name].fim,
                tokens=blocks * mixture.block_tokens,
                share=round(blocks / phase.blocks, 6),
                epochs=mixture.summary["phases"][phase.name][name],
            )
            for name, blocks in phase.draw.items()
        )
        found.append(PhaseCard(name=phase.name, tokens=phase.blocks * mixture.block_tokens, draws=draws))
    return tuple(found)


def _dedup(config: Mapping[str, Any]) -> str:
    if config["scope"] == "none":
        return "near-duplicates were not removed"
    checked = "checked by exact Jaccard index" if config["verify"] == "exact" else "unchecked"
    scope = "within and across sources" if config["scope"] == "global" else "within each source"
    return (
        f"near-duplicates at {config['threshold']:g} of {config['unit']} {config['ngram']}-grams, {checked}, {scope}; "
        f"kept: by {', '.join(map(str, config['keep']))}"
    )


def _duplicates(mixture: Opened) -> list[Removed]:
    return [
        Removed(
            id=sample.id,
            why=f"near-duplicate ({sample.rule})",
            excerpt=_excerpt(sample.text),
            survivor=sample.survivor,
            survivor_excerpt=_excerpt(sample.survivor_text),
            jaccard=round(sample.jaccard, 4),
        )
        for sample in removed_samples(mixture, SAMPLES)
    ]


def _unreadable(stages: Sequence[Opened]) -> list[Removed]:
    found: list[Removed] = []
    for item in stages:
        for shard in shard_files(item, "quarantine") if item.manifest.kind == "documents" else ():
            row = next(batches(shard)).slice(0, 1).to_pylist()[0]
            place = f"{row['file']}:{row['line']}"
            found.append(Removed(id=place, why=f"could not be read: {row['reason']}", excerpt=_excerpt(row["excerpt"])))
            break
    return found


def _excerpt(text: str) -> str:
    short = " ".join(text[: 2 * EXCERPT_CHARS].split())
    return short if len(short) <= EXCERPT_CHARS else short[:EXCERPT_CHARS].rstrip() + " …"
