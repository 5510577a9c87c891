"""Artifacts that a user names → the signatures, clusters and token streams that they were made from.

    mixture ─► tokens ─► deduped ─► ledger ─► clusters ─► signatures ─► documents
                              └──► heldout ──► clusters/global

Any of these will do, or several. All inputs must be there and be what they were: a source that is lost on the way would
be missing from every count.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from dataproc.dedup.keep_keys import PLAIN
from dataproc.dedup.shingles import HASH
from dataproc.dedup.sign import SCHEME, STAGE
from dataproc.recipe.dedup import Dedup
from manifest.artifact import Opened, open_artifact, read_manifest, resolve
from manifest.errors import InputError, NotAnArtifact, WrongArtifact
from manifest.fields import validate
from manifest.identity import short
from manifest.lineage import BYTES, references
from manifest.record import Artifact, Manifest, Reference

SIGNATURES_ADVICE = (
    "give a mixture, clusters or signatures. A build with dedup.scope none and no hold-out has no signatures: set "
    "dedup.scope to local or global, run dataproc build --until signatures, and give what it prints"
)
COMPARED = ("unit", "ngram", "permutations", "scheme", "hash")


@dataclass(frozen=True)
class Found:
    """An artifact that was reached."""

    uri: str
    manifest: Manifest

    @property
    def title(self) -> str:
        return f"{self.manifest.kind}/{self.manifest.name} at {self.uri}"

    @property
    def summary(self) -> dict[str, int]:
        assert isinstance(self.manifest, Artifact)
        return self.manifest.summary


@dataclass(frozen=True)
class Source:
    """A source: its signatures, the documents that they are of, and the tokens per byte of its text, if known."""

    name: str
    signatures: Found
    documents: Found
    tokens_per_byte: float | None


@dataclass(frozen=True)
class Reached:
    """What was named; and for each of these, itself and all that it was made from, nearest first."""

    named: tuple[Found, ...]
    each: tuple[tuple[Found, ...], ...]

    @property
    def everything(self) -> list[Found]:
        """Each artifact once."""
        return list({item.manifest.id: item for items in self.each for item in items}.values())

    def of_kind(self, kind: str) -> list[Found]:
        return [item for item in self.everything if item.manifest.kind == kind]

    def require(self, kind: str, advice: str) -> None:
        """Raises WrongArtifact if one of the named artifacts was made from none of a kind."""
        for named, items in zip(self.named, self.each, strict=True):
            if kind not in {item.manifest.kind for item in items}:
                raise WrongArtifact(f"{named.title} was not made from {kind}; {advice}")


def reach(uris: Sequence[str]) -> Reached:
    """Follows the inputs of artifacts. Raises ArtifactError if one is not there or not what it was."""
    named = tuple(Found(*read_manifest(uri)) for uri in uris)
    return Reached(named, tuple(tuple(_walk(item)) for item in named))


def _walk(named: Found) -> Iterator[Found]:
    """An artifact and all that it was made from, nearest first."""
    waiting, seen = deque([named]), {named.manifest.id}
    while waiting:
        item = waiting.popleft()
        yield item
        for reference in references(item.manifest):
            if reference.kind not in BYTES and reference.id not in seen:
                seen.add(reference.id)
                waiting.append(_follow(item, reference))


def _follow(item: Found, reference: Reference) -> Found:
    """What an input means. Raises ArtifactError."""
    uri = resolve(item.uri, reference.uri)
    lost = f"{item.title} was made from {reference.kind}/{reference.name} {short(reference.id)}, but at {uri} there is"
    try:
        found = Found(*read_manifest(uri))
    except NotAnArtifact as error:
        raise NotAnArtifact(f"{lost} none; restore it, or run dataproc build again") from error
    if found.manifest.id != reference.id:
        raise WrongArtifact(f"{lost} {short(found.manifest.id)} now; restore it, or run dataproc build again")
    return found


def sources_of(reached: Reached) -> list[Source]:
    """The sources whose signatures were reached, in the order that the recipe has, or else that they were named in.

    Raises InputError if there are none, if they do not compare, or if a source has two.
    """
    reached.require("signatures", SIGNATURES_ADVICE)
    found: dict[str, Found] = {}
    for items in reached.each:
        for item in _in_order(items):
            other = found.setdefault(item.manifest.name, item)
            if other.manifest.id != item.manifest.id:
                raise WrongArtifact(
                    f"source {item.manifest.name!r} has two different signatures, {other.uri} and {item.uri}; name "
                    "artifacts of one build, or of builds whose sources have names of their own"
                )
    by_id = {item.manifest.id: item for item in reached.everything}
    _check_alike(list(found.values()), by_id)
    rates = dict(_tokens_per_byte(reached, by_id))
    return [
        Source(name, item, by_id[item.manifest.inputs["documents"].id], rates.get(name)) for name, item in found.items()
    ]


def keep_order(reached: Reached) -> tuple[str, ...]:
    """The keep order of the builds that were reached, or the default. Raises InputError if they differ."""
    orders: dict[tuple[str, ...], Found] = {}
    for item in reached.everything:
        config = item.manifest.config.get("dedup", {}) if item.manifest.kind == "mixture" else item.manifest.config
        if "keep" in config:
            orders.setdefault(_plain(config["keep"], item), item)
    if len(orders) > 1:
        said = " and ".join(f"{','.join(order)} ({item.title})" for order, item in list(orders.items())[:2])
        raise InputError(f"the artifacts keep documents in different orders: {said}; say which one holds with --keep")
    return next(iter(orders), PLAIN)


def _plain(keep: Sequence[object], item: Found) -> tuple[str, ...]:
    """An order that needs no metadata, which is not read here. Raises InputError."""
    if not all(key in PLAIN for key in keep):
        raise InputError(
            f"{item.title} keeps documents by {', '.join(map(str, keep))}; say with --keep which of "
            f"{', '.join(PLAIN)} should decide here"
        )
    return tuple(map(str, keep))


def parse_keep(spec: str | None) -> tuple[str, ...] | None:
    """`longest,id` → its keys. Raises RecipeError as for the `keep` of a recipe."""
    if spec is None:
        return None
    keep = validate(Dedup, {"keep": [key.strip() for key in spec.split(",")]}, "--keep").keep
    return tuple(key for key in keep if isinstance(key, str))


def opened(item: Found) -> Opened:
    """The artifact with its files. Raises ArtifactError if they are not there."""
    return open_artifact(item.uri, item.manifest.kind)


def _in_order(items: Sequence[Found]) -> list[Found]:
    """The signatures among what one artifact was made from, in order of the recipe that one of these states.

    Where a build left out documents by tombstones, those of what it left, and not of what it found.
    """
    found = [item for item in items if item.manifest.kind == "signatures"]
    reduced = {reference.id for item in found for reference in references(item.manifest)}
    signatures = [item for item in found if item.manifest.id not in reduced]
    stated: list[list[str]] = [list(item.manifest.config.get("sources", ())) for item in items]
    longest = max(stated, key=len)
    order = {name: place for place, name in enumerate(longest)}
    return sorted(signatures, key=lambda item: order.get(item.manifest.name, len(order)))


def _check_alike(signatures: Sequence[Found], by_id: Mapping[str, Found]) -> None:
    for item in signatures:
        first, config = signatures[0].manifest.config, item.manifest.config
        differ = [key for key in COMPARED if config.get(key) != first.get(key)]
        if differ:
            ours, theirs = (", ".join(f"{key} {c.get(key)}" for key in differ) for c in (first, config))
            raise InputError(
                f"signatures of different makes do not compare: {signatures[0].title} has {ours}, but {item.title} "
                f"has {theirs}; build both with the same dedup.unit, ngram and permutations, by the same Winnow"
            )
    made = tuple(signatures[0].manifest.config.get(key) for key in ("scheme", "hash"))
    stage = _signed_by(signatures[0], by_id)
    if (stage, *made) != (STAGE, SCHEME, HASH):
        raise InputError(
            f"{signatures[0].title} was made by {stage} with {made[0]}, {made[1]}; this Winnow reads "
            f"{STAGE} with {SCHEME}, {HASH}. Run dataproc build again: it signs the documents anew"
        )


def _signed_by(item: Found, by_id: Mapping[str, Found]) -> str:
    """The stage that signed the documents, also where tombstones then left some of them out."""
    while "signatures" in item.manifest.inputs:
        item = by_id[item.manifest.inputs["signatures"].id]
    assert isinstance(item.manifest, Artifact)
    return item.manifest.stage


def _tokens_per_byte(reached: Reached, by_id: Mapping[str, Found]) -> Iterator[tuple[str, float]]:
    """Of each source that has a stream of tokens and the documents that it was made from."""
    for tokens in reversed(reached.of_kind("tokens")):  # the nearest wins
        text_bytes = by_id[tokens.manifest.inputs["deduped"].id].summary["text_bytes"]
        if text_bytes:
            yield str(tokens.manifest.config["source"]), tokens.summary["tokens"] / text_bytes
