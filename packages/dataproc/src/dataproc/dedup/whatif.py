"""What dedup would keep, for every threshold and scope, from one pass over signatures.

in:  signatures/<source>… with their documents
out: a record: documents, characters and tokens that scopes none, local and global keep of each source

The counts are those of builds with the same bands, before hold-out: all candidates of the bands of the lowest
threshold, each pair judged exactly (pair_levels.py), components and survivors for each threshold from one forest.

    identical, candidates, evidence    as for clusters, of all sources together
    holders                            which sources hold a candidate's text (scoped.py)
    levels                             buckets → forest (group_levels.py)
    survivors                          forest → counts

Data goes through scratch files, and every task leaves a note, so that a killed call takes up where it was.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from dataproc.dedup.bands import Bands, verified_bands
from dataproc.dedup.candidates import find_candidates
from dataproc.dedup.evidence import gather_evidence
from dataproc.dedup.group import CANDIDATES, Group, Matching, make_group, shard_pairs
from dataproc.dedup.group_levels import Compared, level_all
from dataproc.dedup.identical import link_identical
from dataproc.dedup.kept import Left, characters_of, left_in_all, survivors
from dataproc.dedup.links import BUCKET_CAP
from dataproc.dedup.reached import Source, keep_order, opened, reach, sources_of
from dataproc.dedup.scoped import Holders, find_holders
from dataproc.dedup.shingles import Shingling
from dataproc.dedup.tokens import TokenRate, token_rates
from dataproc.native import I64
from dataproc.recipe.dedup import Scope
from dataproc.stage import Draft, shard_files, start
from dataproc.workers import Workers
from manifest.errors import InputError
from manifest.identity import digest_of, short
from manifest.record import Model
from manifest.store import locked

STAGE = "whatif/1"
MAX_THRESHOLDS = 200


class Kept(Model):
    """tokens: estimated from characters."""

    documents: int
    characters: int
    tokens: int


class Point(Model):
    """What a threshold and a scope keep of each source, and of all."""

    threshold: float
    scope: Scope
    sources: dict[str, Kept]
    total: Kept


class WhatIf(Model):
    """The points of every threshold, for scopes none, local and global; and what they hold for.

    sources: in keep order. catch: the share of pairs at each threshold that the bands find. tokens: how they were
    estimated. signatures: id by source.
    """

    sources: tuple[str, ...]
    thresholds: tuple[float, ...]
    keep: tuple[str, ...]
    unit: str
    ngram: int
    permutations: int
    bands: tuple[int, int]
    catch: tuple[float, ...]
    tokens: dict[str, TokenRate]
    signatures: dict[str, str]
    compared: Compared
    points: tuple[Point, ...]

    def kept(self, scope: Scope, source: str | None = None) -> list[Kept]:
        """What a scope keeps of a source, or of all, for each threshold."""
        points = [point for point in self.points if point.scope == scope]
        return [point.total if source is None else point.sources[source] for point in points]


@dataclass(frozen=True)
class Asked:
    """A question with nothing left open."""

    sources: tuple[Source, ...]
    thresholds: tuple[float, ...]
    shingling: Shingling
    permutations: int
    bands: Bands
    keep: tuple[str, ...]

    @property
    def names(self) -> list[str]:
        return [source.name for source in self.sources]

    @property
    def fingerprint(self) -> str:
        """Of what the scratch files depend on."""
        return digest_of(
            {
                "stage": STAGE,
                "signatures": [[source.name, source.signatures.manifest.id] for source in self.sources],
                "thresholds": list(self.thresholds),
                "bands": [self.bands.count, self.bands.rows],
                "cap": BUCKET_CAP,
            }
        )


def parse_thresholds(spec: str) -> tuple[float, ...]:
    """`0.5:0.95:0.05` (first, last, step), or thresholds with commas between them → ascending. Raises InputError.

    In decimals, so that they are the numbers that a recipe would have.
    """
    try:
        parts = [Decimal(part) for part in spec.split(":" if ":" in spec else ",")]
        if ":" in spec:
            first, last, step = parts
            if step <= 0 or last < first or (last - first) / step >= MAX_THRESHOLDS:
                raise ValueError
            parts = [first + step * i for i in range(int((last - first) / step) + 1)]
        if len(parts) > MAX_THRESHOLDS or not all(0 < float(part) < 1 for part in parts):
            raise ValueError
    except (ArithmeticError, ValueError):  # the former from Decimal
        raise InputError(
            f"--thresholds {spec}: expected first:last:step such as 0.5:0.95:0.05, or a list such as 0.7,0.8, of at "
            f"most {MAX_THRESHOLDS} thresholds above 0 and below 1"
        ) from None
    return tuple(sorted({float(part) for part in parts}))


def parse_bands(spec: str | None) -> tuple[int, int] | None:
    """`21,6` → 21 bands of 6 rows. Raises InputError."""
    if spec is None:
        return None
    parts = spec.split(",")
    if len(parts) != 2 or not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise InputError(f"--bands {spec}: expected the number of bands and their rows, such as 21,6")
    return int(parts[0]), int(parts[1])


def ask(
    artifacts: Sequence[str],
    thresholds: Sequence[float],
    *,
    bands: tuple[int, int] | None = None,
    keep: tuple[str, ...] | None = None,
) -> Asked:
    """What is to be found out. bands, keep: those given, or the lowest threshold's and the build's. Raises InputError
    if the artifacts lead to no signatures, or to ones that do not compare.
    """
    reached = reach(artifacts)
    sources = tuple(sources_of(reached))
    thresholds = sorted(set(thresholds))
    config = sources[0].signatures.manifest.config
    return Asked(
        sources,
        tuple(thresholds),
        Shingling(config["unit"], config["ngram"]),
        config["permutations"],
        _bands(bands, thresholds[0], config["permutations"]),
        keep or keep_order(reached),
    )


def _bands(given: tuple[int, int] | None, lowest: float, permutations: int) -> Bands:
    try:
        bands = Bands(*given) if given else verified_bands(lowest, permutations)
    except ValueError as error:
        raise InputError(f"threshold {lowest:g}: {error}") from error
    if bands.width > permutations:
        raise InputError(
            f"--bands {bands.count},{bands.rows}: {bands.width} values, but the signatures have {permutations}; give "
            "fewer bands or rows"
        )
    return bands


def whatif(asked: Asked, *, workers: Workers, scratch: Path) -> WhatIf:
    """The answer. scratch: a directory for its files; a killed call leaves them there, and the next takes them up. A
    second call at the same time waits.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    directory = scratch / f"whatif-{short(asked.fingerprint)}"
    with locked(directory.with_suffix(".lock")):
        directory.mkdir(exist_ok=True)
        answer = _answer(asked, workers, start(directory))
        shutil.rmtree(directory)
    return answer


def _answer(asked: Asked, workers: Workers, draft: Draft) -> WhatIf:
    group = _group(asked, workers, draft)
    link_identical(group, workers=workers, draft=draft)
    find_candidates(group, workers=workers, draft=draft)
    gather_evidence(group, CANDIDATES, workers=workers, draft=draft)
    holders = find_holders(group, asked.names)
    forest_N2, compared = level_all(group, asked.thresholds, holders, workers=workers, draft=draft)
    rates, points = _points(asked, group, holders, forest_N2)
    return WhatIf(
        sources=tuple(asked.names),
        thresholds=asked.thresholds,
        keep=asked.keep,
        unit=asked.shingling.unit,
        ngram=asked.shingling.n,
        permutations=asked.permutations,
        bands=(asked.bands.count, asked.bands.rows),
        catch=tuple(round(asked.bands.catch_probability(threshold), 6) for threshold in asked.thresholds),
        tokens=rates,
        signatures={source.name: source.signatures.manifest.id for source in asked.sources},
        compared=compared,
        points=tuple(points),
    )


def _group(asked: Asked, workers: Workers, draft: Draft) -> Group:
    pairs = shard_pairs(
        [
            (
                source.name,
                shard_files(opened(source.documents), "documents"),
                shard_files(opened(source.signatures), "signatures"),
            )
            for source in asked.sources
        ]
    )
    matching = Matching(asked.shingling, asked.permutations, asked.bands, asked.thresholds[0], verified=True)
    return make_group(pairs, matching, workers=workers, draft=draft)


def _points(asked: Asked, group: Group, holders: Holders, forest_N2: I64) -> tuple[dict[str, TokenRate], list[Point]]:
    characters = characters_of(group)
    everything = left_in_all(group, asked.names, characters)
    rates = token_rates(asked.sources, everything.characters.tolist())
    levels = survivors(
        group, holders, forest_N2, characters, levels=len(asked.thresholds), sources=asked.names, keep=asked.keep
    )
    points: list[Point] = []
    for threshold, (local, all_together) in zip(asked.thresholds, levels, strict=True):
        scopes: list[tuple[Scope, Left]] = [("none", everything), ("local", local), ("global", all_together)]
        points += [_point(threshold, scope, left, rates) for scope, left in scopes]
    return rates, points


def _point(threshold: float, scope: Scope, left: Left, rates: dict[str, TokenRate]) -> Point:
    kept = {
        name: Kept(documents=documents, characters=characters, tokens=rate.tokens(characters))
        for (name, rate), documents, characters in zip(
            rates.items(), left.documents.tolist(), left.characters.tolist(), strict=True
        )
    }
    total = Kept(**{key: sum(getattr(k, key) for k in kept.values()) for key in Kept.model_fields})
    return Point(threshold=threshold, scope=scope, sources=kept, total=total)
