"""The build: which stages run on which artifacts, from raw files to a published mixture.

normalize ─► sign ─► cluster (per group) ─► keep (ledger) ─┐
    │                └► global clusters ─► holdout ────────┼─► dedupe ─► tokenizer ─► tokenize ─► mix ─► card
    └──────────────────────────────────────────────────────┘
└───── texts ─────┘└──────────────────── near ────────────────────┘└────────── training ──────────┘

Evaluation items are looked for in all documents (contamination.py); what holds them leaves in `dedupe`.
Given tombstones, what comes after `sign` sees no document that falls under one (dedup/removal.py).
"""

from __future__ import annotations

from dataclasses import dataclass

from dataproc.dedup.stones import NO_STONES, Stones
from dataproc.gates import Gatekeeper
from dataproc.inventory import build_identity, evaluation_listing, inventory, with_hashes
from dataproc.pipeline import contamination, near, texts, training
from dataproc.pipeline.context import Artifacts, Context, Item
from dataproc.raw import RawFile
from dataproc.recipe import DataRecipe
from dataproc.retention import of_clusters, retention
from dataproc.stage import Build, Planned, summary_of
from manifest.artifact import Opened

STAGES = (
    *("documents", "signatures", "contamination", "clusters", "ledger", "heldout", "deduped"),
    *("tokenizers", "tokens", "mixtures"),
)


@dataclass(frozen=True)
class Inventory:
    """The raw files of each source and of each evaluation set, with their hashes, and the identity of the build that
    they make with the recipe.
    """

    files: dict[str, list[RawFile]]
    evaluations: dict[str, list[RawFile]]
    identity: str


@dataclass
class Pipeline:
    """One build of a recipe over a raw root."""

    recipe: DataRecipe
    raw: str
    build: Build
    until: str = "mixtures"
    stones: Stones = NO_STONES

    def __post_init__(self) -> None:
        self.context = Context(self.recipe, self.build, Gatekeeper(self.recipe.dedup.gates))

    def plan(self) -> Inventory:
        """Lists and hashes the raw files. Raises DataError if a source has none, InputError if `raw` does not open."""
        files = inventory(self.recipe, self.raw, self.build)
        evaluations = with_hashes(evaluation_listing(self.recipe, self.raw, self.until), self.build)
        without = self.stones.digest if self.stones else ""
        identity = build_identity(self.recipe, files, self.until, without, evaluations)
        return Inventory(files, evaluations, identity)

    def run(self, planned: Inventory | None = None) -> list[Item]:
        """Builds up to `until` and returns what that stage published. Raises InputError for wrong input."""
        planned = planned or self.plan()
        items = contamination.items(self.context, planned.evaluations)
        documents = {name: texts.documents(self.context, name, found) for name, found in planned.files.items()}
        if self.until == "documents":
            return list(documents.values())
        signatures = (
            {name: texts.signatures(self.context, name, documents[name]) for name in documents} if self._signs else {}
        )
        if self.until == "signatures":
            return list(signatures.values())
        documents, signatures = texts.without(self.context, documents, signatures, self.stones)
        found = contamination.contamination(self.context, items, planned.evaluations, documents)
        if self.until == "contamination":
            return [found] if found else []
        clusters = near.all_clusters(self.context, documents, signatures)
        if self.until == "clusters":
            return list(clusters.values())
        ledgers = {
            group: near.ledger_of(self.context, group, clusters[group], documents, signatures)
            for group in self.context.groups()
        }
        if self.until == "ledger":
            return list(ledgers.values())
        heldout = near.heldout(self.context, clusters.get("global"), ledgers, documents)
        if self.until == "heldout":
            return [heldout] if heldout else []
        removed = contamination.contaminated(self.context, found, ledgers)
        deduped = {
            name: near.deduped(self.context, name, documents[name], ledgers, heldout, removed) for name in documents
        }
        if self.until == "deduped":
            return list(deduped.values())
        return self._train_side(documents, clusters, ledgers, heldout, deduped, found)

    def _train_side(
        self,
        documents: Artifacts,
        clusters: Artifacts,
        ledgers: Artifacts,
        heldout: Item | None,
        deduped: Artifacts,
        found: Item | None,
    ) -> list[Item]:
        tokenizer = training.tokenizer_of(self.context, deduped)
        if self.until == "tokenizers":
            return [tokenizer]
        tokens = {
            name: training.tokens_of(self.context, name, stream, deduped[stream.source], tokenizer)
            for name, stream in self.recipe.streams().items()
        }
        if self.until == "tokens":
            return list(tokens.values())
        needed = [
            tokenizer,
            heldout,
            found,
            *tokens.values(),
            *documents.values(),
            *ledgers.values(),
            *deduped.values(),
        ]
        if any(isinstance(item, Planned) for item in needed):
            return [self.build.plan("mixtures", self.recipe.name)]
        counts = retention(self.recipe, documents, ledgers, heldout, deduped, tokens)
        counts |= {"clusters": {group: of_clusters(summary_of(item)) for group, item in clusters.items()}}
        if found is not None:
            assert self.recipe.decontaminate is not None
            counts |= {"contamination": {"action": self.recipe.decontaminate.action, **summary_of(found)}}
        mixture = training.mixture_of(self.context, tokens, tokenizer, heldout, found, counts)
        if isinstance(mixture, Opened):
            from dataproc.card.stage import card_of  # what draws takes longer to import than all else

            card_of(mixture, self.build)
        return [mixture]

    @property
    def _signs(self) -> bool:
        """Whether signatures are needed: to remove near-duplicates, to hold out whole clusters, or to find texts."""
        dedups = self.recipe.dedup.scope != "none" or self.recipe.holds_out_by == "cluster"
        return dedups or bool(self.stones.texts)
