"""The build: which stages run on which artifacts, from raw files to a published mixture.

normalize ─► sign ─► cluster (per group) ─► keep (ledger) ─┐
    │                └► global clusters ─► holdout ────────┼─► dedupe ─► tokenizer ─► tokenize ─► mix
    └──────────────────────────────────────────────────────┘

Given tombstones, what comes after `sign` sees no document that falls under one (dedup/removal.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from dataproc import mix, normalize, tokenize, vocab
from dataproc.dedup import cluster, dedupe, holdout, holdout_position, ledger, removal, sign
from dataproc.dedup.group import Matching
from dataproc.dedup.links import BUCKET_CAP
from dataproc.dedup.shingles import HASH, Shingling
from dataproc.dedup.stones import NO_STONES, Stones
from dataproc.gates import Gatekeeper
from dataproc.identifiers import unique_ids
from dataproc.inventory import build_identity, inventory
from dataproc.raw import RawFile, tasks
from dataproc.recipe import DataRecipe
from dataproc.retention import of_clusters, retention
from dataproc.stage import Build, Draft, Input, Made, Planned, Raw, Request, producer, shard_files, summary_of
from manifest.artifact import Opened, verify
from manifest.errors import RecipeError
from manifest.identity import short
from manifest.progress import Progress, report
from manifest.record import now

STAGES = ("documents", "signatures", "clusters", "ledger", "heldout", "deduped", "tokenizers", "tokens", "mixtures")
LIBRARIES = ("tokenizers",)  # what shapes tokenizers and tokens

Artifacts = dict[str, Opened | Planned]


@dataclass(frozen=True)
class Inventory:
    """The raw files of each source, with their hashes, and the identity of the build that they make with the recipe."""

    files: dict[str, list[RawFile]]
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
        self.gates = Gatekeeper(self.recipe.dedup.gates)

    def plan(self) -> Inventory:
        """Lists and hashes the raw files. Raises DataError if a source has none, InputError if `raw` does not open."""
        files = inventory(self.recipe, self.raw, self.build)
        without = self.stones.digest if self.stones else ""
        return Inventory(files, build_identity(self.recipe, files, self.until, without))

    def run(self, planned: Inventory | None = None) -> list[Opened | Planned]:
        """Builds up to `until` and returns what that stage published. Raises InputError for wrong input."""
        files = (planned or self.plan()).files
        documents = {name: self._documents(name, found) for name, found in files.items()}
        if self.until == "documents":
            return list(documents.values())
        signatures = {name: self._signatures(name, documents[name]) for name in documents} if self._signs else {}
        if self.until == "signatures":
            return list(signatures.values())
        documents, signatures = self._without(documents, signatures)
        clusters = self._all_clusters(documents, signatures)
        if self.until == "clusters":
            return list(clusters.values())
        ledgers = {group: self._ledger(group, clusters[group], documents) for group in self._groups()}
        if self.until == "ledger":
            return list(ledgers.values())
        heldout = self._heldout(clusters.get("global"), ledgers, documents)
        if self.until == "heldout":
            return [heldout] if heldout else []
        deduped = {name: self._deduped(name, documents[name], ledgers, heldout) for name in documents}
        if self.until == "deduped":
            return list(deduped.values())
        return self._train_side(documents, clusters, ledgers, heldout, deduped)

    def _train_side(
        self,
        documents: Artifacts,
        clusters: Artifacts,
        ledgers: Artifacts,
        heldout: Opened | Planned | None,
        deduped: Artifacts,
    ) -> list[Opened | Planned]:
        tokenizer = self._tokenizer(deduped)
        if self.until == "tokenizers":
            return [tokenizer]
        tokens = {name: self._tokens(name, deduped[name], tokenizer) for name in self.recipe.streams()}
        if self.until == "tokens":
            return list(tokens.values())
        needed = [tokenizer, heldout, *tokens.values(), *documents.values(), *ledgers.values(), *deduped.values()]
        if any(isinstance(item, Planned) for item in needed):
            return [self.build.plan("mixtures", self.recipe.name)]
        counts = retention(self.recipe, documents, ledgers, heldout, deduped, tokens)
        counts |= {"clusters": {group: of_clusters(summary_of(item)) for group, item in clusters.items()}}
        if self.gates.overridden:
            counts |= {"overridden": self.gates.overridden}
        return [self._mixture(tokens, tokenizer, heldout, counts)]

    # ---- what each stage is asked

    @property
    def _signs(self) -> bool:
        """Whether signatures are needed: to remove near-duplicates, to hold out whole clusters, or to find texts."""
        dedups = self.recipe.dedup.scope != "none" or self.recipe.holds_out_by == "cluster"
        return dedups or bool(self.stones.texts)

    @property
    def _shingling(self) -> Shingling:
        return Shingling(self.recipe.dedup.unit, self.recipe.dedup.ngram)

    @property
    def _shingles(self) -> dict[str, Any]:
        """The shingling in a stage's config."""
        return {"unit": self.recipe.dedup.unit, "ngram": self.recipe.dedup.ngram}

    def _min_chars_last(self, name: str) -> int:
        """What a source's documents must have where short ones take part in dedup first; else 0."""
        return self.recipe.sources[name].cleaning(self.recipe.clean).min_chars if self.recipe.drops_short_last else 0

    @property
    def _keep(self) -> list[Any]:
        """The keep order in a stage's config."""
        return [key if isinstance(key, str) else key.name for key in self.recipe.dedup.keep]

    @property
    def _matching(self) -> Matching:
        dedup = self.recipe.dedup
        verified = dedup.verify == "exact"
        return Matching(self._shingling, dedup.permutations, dedup.banding, dedup.threshold, verified)

    def _groups(self) -> dict[str, list[str]]:
        """The groups in which near-duplicates are removed: name → sources."""
        sources = list(self.recipe.sources)
        groups = {"global": {"global": sources}, "local": {name: [name] for name in sources}, "none": {}}
        return groups[self.recipe.dedup.scope]

    def _documents(self, name: str, files: Sequence[RawFile]) -> Opened | Planned:
        source = self.recipe.sources[name]
        clean = source.cleaning(self.recipe.clean)
        if self.recipe.drops_short_last:
            clean = clean.model_copy(update={"min_chars": 0})

        def make(draft: Draft) -> Made:
            done = self.build.workers.map(
                partial(normalize.normalize, name=name, source=source, clean=clean, draft=draft.path),
                list(enumerate(tasks(files))),
                result=normalize.Normalized,
                notes=draft.notes / "normalize",
                label=f"documents/{name}",
            )
            shards = tuple(shard for task in done for shard in task.shards)
            counts = {key: sum(getattr(task, key) for task in done) for key in normalize.COUNTS}
            bad = [draft.path / shard.path for shard in shards if shard.path.startswith("quarantine")]
            normalize.check_unreadable(name, counts, bad, clean)
            return Made(unique_ids(name, source, shards, draft), counts)

        inputs: dict[str, Input] = {f.path: Raw(f.path, f.sha256, f.uri) for f in files}
        shaping = clean.model_dump(mode="json", exclude={"max_unreadable"})
        config = {"source": name, "text": source.text, "id": source.id, "clean": shaping}
        request = Request("documents", name, normalize.STAGE, config, inputs, ("ftfy", "orjson", "pyarrow"))
        made = self.build.make(request, make)
        if isinstance(made, Opened):  # also where it was published with a higher limit
            normalize.check_unreadable(name, summary_of(made), shard_files(made, "quarantine"), clean)
        return made

    def _signatures(self, name: str, documents: Opened | Planned) -> Opened | Planned:
        dedup = self.recipe.dedup

        def make(draft: Draft) -> Made:
            assert isinstance(documents, Opened)
            done = self.build.workers.map(
                partial(sign.sign, shingling=self._shingling, permutations=dedup.permutations, draft=draft.path),
                shard_files(documents, "documents"),
                result=sign.Signed,
                notes=draft.notes / "sign",
                label=f"signatures/{name}",
            )
            return Made(tuple(s for d in done for s in d.shards), {"documents": sum(d.documents for d in done)})

        config = {**self._shingles, "permutations": dedup.permutations, "scheme": sign.SCHEME, "hash": HASH}
        return self.build.make(Request("signatures", name, sign.STAGE, config, {"documents": documents}), make)

    def _without(self, documents: Artifacts, signatures: Artifacts) -> tuple[Artifacts, Artifacts]:
        """The sources without what falls under the tombstones, as if the raw files had never held it."""
        if not self.stones:
            return documents, signatures
        sources = [
            removal.Source(name, item, signatures.get(name), content_ids=self.recipe.sources[name].id is None)
            for name, item in documents.items()
        ]
        left = removal.without(sources, self.stones, self._matching, self.build)
        signed = {source.name: source.signatures for source in left if source.signatures is not None}
        return {source.name: source.documents for source in left}, signed

    def _all_clusters(self, documents: Artifacts, signatures: Artifacts) -> Artifacts:
        groups = self._groups()
        if self.recipe.holds_out_by == "cluster":
            groups = {**groups, "global": list(self.recipe.sources)}
        return {
            group: self._clusters(group, {n: documents[n] for n in names}, {n: signatures[n] for n in names})
            for group, names in groups.items()
        }

    def _clusters(self, group: str, documents: Artifacts, signatures: Artifacts) -> Opened | Planned:
        dedup = self.recipe.dedup
        bands = dedup.banding

        def make(draft: Draft) -> Made:
            sources = [
                (name, _shards(documents[name], "documents"), _shards(signatures[name], "signatures"))
                for name in documents
            ]
            made = cluster.cluster(
                sources,
                self._matching,
                workers=self.build.workers,
                draft=draft,
            )
            self._check_clusters(group, made.summary)
            return made

        banding = {"bands": bands.count, "rows": bands.rows, "cap": BUCKET_CAP}
        config = {**self._shingles, **banding, "threshold": dedup.threshold, "verify": dedup.verify}
        inputs = {f"signatures/{n}": item for n, item in signatures.items()}
        made = self.build.make(Request("clusters", group, cluster.STAGE, config, inputs), make)
        if isinstance(made, Opened):  # also where it was published under a laxer gate
            self._check_clusters(group, summary_of(made))
        return made

    def _check_clusters(self, group: str, summary: Mapping[str, Any]) -> None:
        self.gates.check_cluster(group, summary)
        self.gates.check_precision(group, summary)

    def _ledger(self, group: str, clusters: Opened | Planned, documents: Artifacts) -> Opened | Planned:
        dedup = self.recipe.dedup
        names = self._groups()[group]

        def make(draft: Draft) -> Made:
            return ledger.ledger(
                _shards(clusters, "clusters"),
                [(name, _shards(documents[name], "documents")) for name in names],
                keep=dedup.keep,
                shingling=self._shingling,
                workers=self.build.workers,
                draft=draft,
            )

        config = {**self._shingles, "keep": self._keep, "sources": names}
        inputs = {"clusters": clusters, **{f"documents/{n}": documents[n] for n in names}}
        return self.build.make(Request("ledger", group, ledger.STAGE, config, inputs), make)

    def _heldout(
        self, clusters: Opened | Planned | None, ledgers: Artifacts, documents: Artifacts
    ) -> Opened | Planned | None:
        by = self.recipe.holds_out_by
        if by is None:
            return None
        sources = list(documents)
        config = {**self.recipe.holdout.model_dump(exclude={"by"}), "sources": sources}
        inputs: dict[str, Input] = {f"documents/{n}": item for n, item in documents.items()}
        if by == "position":
            min_chars = {name: self._min_chars_last(name) for name in sources}
            config |= {"min_chars": min_chars}
            inputs |= {f"ledger/{group}": item for group, item in ledgers.items()}
            request = Request("heldout", self.recipe.name, holdout_position.STAGE, config, inputs)
            return self.build.make(request, partial(self._hold_by_position, ledgers, documents, min_chars))
        assert clusters is not None
        config |= {"keep": self._keep}
        inputs |= {"clusters": clusters}
        request = Request("heldout", self.recipe.name, holdout.STAGE, config, inputs)
        return self.build.make(request, partial(self._hold_by_cluster, clusters, documents))

    def _hold_by_position(
        self, ledgers: Artifacts, documents: Artifacts, min_chars: dict[str, int], draft: Draft
    ) -> Made:
        return holdout_position.holdout(
            [shard for item in ledgers.values() for shard in _shards(item, "ledger")],
            [(name, _shards(item, "documents")) for name, item in documents.items()],
            config=self.recipe.holdout,
            min_chars=min_chars,
            workers=self.build.workers,
            draft=draft,
        )

    def _hold_by_cluster(self, clusters: Opened | Planned, documents: Artifacts, draft: Draft) -> Made:
        return holdout.holdout(
            _shards(clusters, "clusters"),
            [(name, _shards(item, "documents")) for name, item in documents.items()],
            config=self.recipe.holdout,
            keep=self.recipe.dedup.keep,
            workers=self.build.workers,
            draft=draft,
        )

    def _deduped(
        self, name: str, documents: Opened | Planned, ledgers: Artifacts, heldout: Opened | Planned | None
    ) -> Opened | Planned:
        min_chars = self._min_chars_last(name)
        removals = next((ledgers[group] for group, names in self._groups().items() if name in names), None)
        inputs: dict[str, Input] = {"documents": documents}
        if removals is not None:
            inputs["ledger"] = removals
        if heldout is not None:
            inputs["heldout"] = heldout

        def make(draft: Draft) -> Made:
            lists = _shards(removals, "ledger") if removals else []
            if heldout:
                lists += _shards(heldout, "places")
            shards = _shards(documents, "documents")
            made = dedupe.dedupe(name, shards, lists, min_chars=min_chars, workers=self.build.workers, draft=draft)
            self.gates.check_loss(name, summary_of(documents), made.summary)
            return made

        config = {"source": name, "min_chars": min_chars}
        made = self.build.make(Request("deduped", name, dedupe.STAGE, config, inputs), make)
        if isinstance(made, Opened):
            self.gates.check_loss(name, summary_of(documents), summary_of(made))
        return made

    def _tokenizer(self, deduped: Artifacts) -> Opened | Planned:
        train, path = self.recipe.tokenizer.train, self.recipe.tokenizer.path
        if train is None:
            assert path is not None
            text = vocab.load(Path(path)).to_str()
            request = Request("tokenizers", self.recipe.name, vocab.STAGE, {"tokenizer_json": text}, {}, LIBRARIES)
            return self.build.make(request, lambda draft: vocab.given(Path(path), draft=draft))

        def make(draft: Draft) -> Made:
            shards = [shard for item in deduped.values() for shard in _shards(item, "documents")]
            size = sum(int(summary_of(item)["text_bytes"]) for item in deduped.values())
            if size == 0:
                raise RecipeError("no document is left to train a tokenizer on; the sources are empty after dedup")
            return vocab.train(shards, size, train, workers=self.build.workers, draft=draft)

        inputs = {f"deduped/{name}": item for name, item in deduped.items()}
        request = Request("tokenizers", self.recipe.name, vocab.STAGE, train.model_dump(mode="json"), inputs, LIBRARIES)
        return self.build.make(request, make)

    def _tokens(self, name: str, deduped: Opened | Planned, tokenizer: Opened | Planned) -> Opened | Planned:
        def make(draft: Draft) -> Made:
            assert isinstance(tokenizer, Opened)
            verify(tokenizer.uri)  # one wrong byte here would be wrong in every token
            return tokenize.tokenize(
                _shards(deduped, "documents"),
                int(summary_of(deduped)["text_bytes"]),
                tokenizer.directory,
                workers=self.build.workers,
                draft=draft,
            )

        inputs = {"deduped": deduped, "tokenizer": tokenizer}
        config = {"source": name, "shard_text_bytes": tokenize.SHARD_TEXT_BYTES}
        return self.build.make(Request("tokens", name, tokenize.STAGE, config, inputs, LIBRARIES), make)

    def _mixture(
        self, tokens: Artifacts, tokenizer: Opened | Planned, heldout: Opened | Planned | None, counts: dict[str, Any]
    ) -> Opened | Planned:
        assert isinstance(tokenizer, Opened)
        assert heldout is None or isinstance(heldout, Opened)
        some = {n: item for n, item in tokens.items() if isinstance(item, Opened) and summary_of(item)["tokens"] > 0}
        report(Progress(stage=f"mixtures/{self.recipe.name}", done=0, total=1, unit="mixtures"))
        base = self.build.store.where("mixtures/any")  # uris depend on the depth only, not on the name
        made = mix.mixture(
            self.recipe, tokens=some, tokenizer=tokenizer, heldout=heldout, base=base, summary=counts
        ).identified()
        path = f"mixtures/{made.name}-{short(made.id)}"
        return self.build.publish(path, made.model_copy(update={"producer": producer(()), "created": now()}))


def _shards(item: Opened | Planned, stem: str) -> list[Path]:
    assert isinstance(item, Opened)
    return shard_files(item, stem)
