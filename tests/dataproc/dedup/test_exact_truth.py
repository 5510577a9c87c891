"""The whole chain on real text, against the exact Jaccard of all pairs.

Reads a reference corpus: `truth/dedup_exact/SUMMARY.json` names its subsets and their files, and
`<subset>.pairs.jsonl.zst` lists the pairs (a, b, j_char13) of ids, found without any hashing.
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pytest
import zstandard
from tests.reference import DATA, TRUTH, needs_truth

from dataproc.dedup.band_keys import band_keys
from dataproc.dedup.bands import verified_bands
from dataproc.dedup.buckets import buckets
from dataproc.dedup.cleaning import clean_all
from dataproc.dedup.components import connect, labels
from dataproc.dedup.identical import identical
from dataproc.dedup.minhash import is_signed, signatures
from dataproc.dedup.pairs import Evidence, link
from dataproc.dedup.shingles import Shingling, shingle_hashes, text_hashes, unique_sorted

THRESHOLD = 0.8
SUBSETS = ["versioned_docs", "medquad", "code_py_web", "stackexchange", "arabic_docs"]

pytestmark = needs_truth


@dataclass(frozen=True)
class Clustered:
    ids: list[str]
    cleaned: list[str]
    edges: np.ndarray
    parent: np.ndarray


def lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open("rb") as file, zstandard.ZstdDecompressor().stream_reader(file) as stream:
        yield from map(orjson.loads, io.BufferedReader(stream))


def summary(subset: str) -> dict[str, Any]:
    return next(s for s in orjson.loads((TRUTH / "SUMMARY.json").read_bytes()) if s["name"] == subset)


def cluster(subset: str) -> Clustered:
    documents = sorted((row["id"], row["text"]) for name in summary(subset)["files"] for row in lines(DATA / name))
    cleaned = clean_all(pa.array([text for _, text in documents], pa.large_string()))
    shingles = shingle_hashes(cleaned, Shingling("char", 13))
    signatures_ND = signatures(shingles)
    sets = unique_sorted(shingles)
    docs = np.flatnonzero(is_signed(signatures_ND))
    batches = [identical(text_hashes(cleaned), np.arange(len(cleaned)))]
    parent = connect(np.arange(len(cleaned)), batches[0])
    evidence = Evidence.of(signatures_ND, sets)
    for keys in band_keys(signatures_ND[docs], verified_bands(THRESHOLD, 128)).T:
        links = link(buckets(keys, docs), evidence, labels(parent), threshold=THRESHOLD, cap=100_000)
        batches.append(links.edges)
        parent = connect(parent, links.edges)
    return Clustered([name for name, _ in documents], cleaned.to_pylist(), np.concatenate(batches), parent)


def true_pairs(subset: str) -> set[tuple[str, str]]:
    rows = lines(TRUTH / f"{subset}.pairs.jsonl.zst")
    return {(min(r["a"], r["b"]), max(r["a"], r["b"])) for r in rows if r["j_char13"] >= THRESHOLD}


@pytest.mark.parametrize("subset", SUBSETS)
def test_only_true_pairs_are_linked_and_nearly_all_duplicates_found(subset: str) -> None:
    found = cluster(subset)
    truth = true_pairs(subset)
    for a, b in found.edges:
        same = found.cleaned[a] == found.cleaned[b]
        assert same or (found.ids[a], found.ids[b]) in truth, (found.ids[a], found.ids[b])
    kept = len(np.unique(labels(found.parent)))
    assert kept == pytest.approx(summary(subset)["components_char13_08"], rel=0.005)
