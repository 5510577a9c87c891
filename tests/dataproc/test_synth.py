"""A synth corpus holds what its recipe says: counts, kinds with the Jaccard they promise, sources, and the truth."""

from __future__ import annotations

import string
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations, pairwise
from pathlib import Path
from statistics import mean
from typing import Any

import orjson
import pyarrow.parquet as pq
import pytest
import zstandard

from dataproc.synth.corpus import synth
from dataproc.synth.recipe import SynthRecipe
from manifest.errors import DataError, InputError

Make = Callable[..., Any]

KINDS = {
    "exact": {"share": 0.2},
    "surface": {"share": 0.2},
    "edits": {"share": 0.2, "params": [0.01, 0.02, 0.05, 0.2]},
    "blocks": {"share": 0.1, "params": [0.05, 0.25]},
    "boilerplate": {"share": 0.1, "params": [0.1, 0.24]},
    "truncated": {"share": 0.1, "params": [0.9, 0.5]},
    "appended": {"share": 0.1, "params": [0.1, 0.25]},
}


def small(**overrides: Any) -> SynthRecipe:
    fields: dict[str, Any] = {
        "name": "small",
        "sources": {"text": {"files": "*/*"}},
        "lengths": {"median_chars": 3000, "sigma": 0.3, "min_chars": 1500, "max_chars": 6000},
        "into": {"web": 0.7, "books": 0.3},
        "copies": {"share": 0.4, "sizes": {"exponent": 1.5, "max_copies": 30}, "kinds": KINDS},
        "templates": [{"share": 0.05, "words": 300, "fields": 4}],
    }
    return SynthRecipe.model_validate({**fields, **overrides})


@dataclass(frozen=True)
class Made:
    """A corpus: its texts and sources as they lie in raw/, its truth, its corpus.json."""

    path: Path
    texts: dict[str, str]
    sources: dict[str, str]
    truth: list[dict[str, Any]]
    facts: dict[str, Any]

    @property
    def copies(self) -> list[dict[str, Any]]:
        return [row for row in self.truth if row["kind"] not in ("base", "template")]


def opened(path: Path) -> Made:
    texts: dict[str, str] = {}
    sources: dict[str, str] = {}
    for shard in path.glob("raw/*/*.jsonl.zst"):
        for line in zstandard.decompress(shard.read_bytes()).splitlines():
            row = orjson.loads(line)
            assert row["id"] not in texts
            texts[row["id"]], sources[row["id"]] = row["text"], shard.parent.name
    facts = orjson.loads((path / "corpus.json").read_bytes())
    return Made(path, texts, sources, pq.read_table(path / "truth.parquet").to_pylist(), facts)


def cleaned(text: str) -> list[str]:
    return "".join(c for c in text.lower() if c not in string.punctuation).split()


def jaccard(a: str, b: str) -> float:
    x, y = ({tuple(w[i : i + 5]) for i in range(len(w) - 4)} for w in (cleaned(a), cleaned(b)))
    return len(x & y) / len(x | y)


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory, write_jsonl: Make, words: Make) -> Path:
    """Four files of long records, in paragraphs, with sentences; some records are no text, or without words."""
    root = tmp_path_factory.mktemp("raw")

    def text(seed: int) -> str:
        tokens = words(seed, 3000)
        sentences = [" ".join(tokens[i : i + 12]).capitalize() + "." for i in range(0, len(tokens), 12)]
        return "\n\n".join(" ".join(sentences[i : i + 5]) for i in range(0, len(sentences), 5))

    for file in range(4):
        records: list[dict[str, Any]] = [{"text": text(100 * file + i)} for i in range(12)]
        write_jsonl(
            root / "ab"[file % 2] / f"{file}.jsonl",
            [*records, {"text": None}, {"other": "x"}, {"text": "|---| " * 999}],
        )
    return root


@pytest.fixture(scope="module")
def made(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    out = tmp_path_factory.mktemp("corpus") / "small"
    synth(small(), str(raw), documents=500, out=out)
    return opened(out)


def test_the_same_request_makes_the_same_files(raw: Path, made: Made, tmp_path: Path) -> None:
    synth(small(), str(raw), documents=500, out=tmp_path / "again")
    files = sorted(path.relative_to(made.path) for path in made.path.rglob("*") if path.is_file())
    assert len(files) >= 5
    assert [(made.path / f).read_bytes() for f in files] == [(tmp_path / "again" / f).read_bytes() for f in files]


def test_another_seed_makes_another_corpus(raw: Path, made: Made, tmp_path: Path) -> None:
    synth(small(), str(raw), documents=500, out=tmp_path / "other", seed=1)
    other = opened(tmp_path / "other")
    assert Counter(row["kind"] for row in other.truth) == Counter(row["kind"] for row in made.truth)
    assert len(set(other.texts.values()) & set(made.texts.values())) < 50


def test_counts_are_the_recipes(made: Made) -> None:
    counts = Counter(row["kind"] for row in made.truth)
    assert counts.pop("base") == 275
    assert counts.pop("template") == 25
    assert counts == {"exact": 40, "surface": 40, "edits": 40, **dict.fromkeys(list(KINDS)[3:], 20)}
    assert made.facts["documents"] == len(made.texts) == 500
    assert made.facts["text_bytes"] == sum(len(text.encode()) for text in made.texts.values())


def test_the_truth_lists_every_document_once_with_its_base(made: Made) -> None:
    assert {row["id"]: row["source"] for row in made.truth} == made.sources
    bases = {row["id"] for row in made.truth if row["kind"] == "base"}
    assert all(row["base_id"] == row["id"] for row in made.truth if row["kind"] == "base")
    assert {row["base_id"] for row in made.copies} <= bases
    (first,) = {row["base_id"] for row in made.truth if row["kind"] == "template"}
    assert first in made.texts


def promised(kind: str, p: float) -> float:
    unedited = (1 - p) ** 5
    return {
        "exact": 1.0,
        "surface": 1.0,
        "edits": unedited / (2 - unedited),
        "blocks": (1 - p) / (1 + p),
        "boilerplate": (1 - p) / (1 + p),
        "truncated": p,
        "appended": 1 / (1 + p),
    }[kind]


def test_each_kind_has_the_jaccard_that_it_promises(made: Made) -> None:
    found: dict[tuple[str, float], list[float]] = defaultdict(list)
    for row in made.copies:
        found[row["kind"], row["param"]].append(jaccard(made.texts[row["id"]], made.texts[row["base_id"]]))
    assert {kind for kind, _ in found} == set(KINDS)
    for (kind, param), values in found.items():
        assert mean(values) == pytest.approx(promised(kind, param), abs=0.03), (kind, param)


def test_exact_and_surface_copies_clean_to_the_text_of_their_base(made: Made) -> None:
    for row in made.copies:
        text, base = made.texts[row["id"]], made.texts[row["base_id"]]
        if row["kind"] == "exact":
            assert text == base
        elif row["kind"] == "surface":
            assert text != base
            assert cleaned(text) == cleaned(base)


def test_a_text_without_words_is_no_document(made: Made) -> None:
    assert not [identifier for identifier, text in made.texts.items() if not cleaned(text)]


def test_base_documents_are_unlike_each_other(made: Made) -> None:
    bases = [made.texts[row["id"]] for row in made.truth if row["kind"] == "base"]
    assert max(jaccard(a, b) for a, b in combinations(bases[:60], 2)) < 0.1


def test_members_of_a_template_are_near_but_not_alike(made: Made) -> None:
    members = [made.texts[row["id"]] for row in made.truth if row["kind"] == "template"]
    values = [jaccard(a, b) for a, b in combinations(members, 2)]
    assert mean(values) == pytest.approx((296 - 20) / (296 + 20), abs=0.02)
    assert len(set(members)) == len(members)


def test_cluster_sizes_have_a_heavy_tail(made: Made) -> None:
    sizes = Counter(Counter(row["base_id"] for row in made.copies).values())
    assert sizes[1] > sizes[2] > 0
    assert max(sizes) >= 8


def test_documents_are_split_over_the_sources_and_half_of_the_copies_are_moved(raw: Path, tmp_path: Path) -> None:
    recipe = small(lengths={"median_chars": 300, "sigma": 0, "min_chars": 300}, templates=[])
    synth(recipe, str(raw), documents=3000, out=tmp_path / "corpus")
    corpus = opened(tmp_path / "corpus")
    assert Counter(corpus.sources.values())["web"] / 3000 == pytest.approx(0.7, abs=0.03)
    elsewhere = [corpus.sources[row["id"]] != corpus.sources[row["base_id"]] for row in corpus.copies]
    assert mean(elsewhere) == pytest.approx(0.5 * 2 * 0.7 * 0.3, abs=0.04)


def test_neighbours_in_a_shard_are_not_a_family(made: Made) -> None:
    family = {row["id"]: row["base_id"] for row in made.truth}
    ids = list(made.texts)
    together = sum(family[a] == family[b] for a, b in pairwise(ids))
    assert together < 0.1 * len(ids)


def test_documents_may_share_a_header_and_nothing_else(raw: Path, tmp_path: Path) -> None:
    header = {"share": 0.5, "words": 40}
    synth(small(copies={}, templates=[], shared_header=header), str(raw), documents=120, out=tmp_path / "corpus")
    corpus = opened(tmp_path / "corpus")
    headed = [corpus.texts[row["id"]] for row in corpus.truth if row["param"] == 40]
    assert 40 <= len(headed) <= 80
    assert len({tuple(text.split()[:40]) for text in headed}) == 1
    assert max(jaccard(a, b) for a, b in combinations(headed[:30], 2)) < 0.2
    plain = [corpus.texts[row["id"]] for row in corpus.truth if row["param"] == 0]
    assert not any(text.split()[:5] == headed[0].split()[:5] for text in plain)


def test_more_documents_than_raw_text_are_made_of_spans_that_are_not_near(raw: Path, tmp_path: Path) -> None:
    recipe = small(copies={}, templates=[])
    synth(recipe, str(raw), documents=900, out=tmp_path / "corpus")
    corpus = opened(tmp_path / "corpus")
    made_of_spans = [corpus.texts[f"b{number:08d}"] for number in range(840, 900)]
    assert corpus.facts["recombined"] > 60
    assert max(jaccard(a, b) for a, b in combinations(made_of_spans, 2)) < 0.2
    assert len(set(corpus.texts.values())) == 900


def test_too_little_text_for_so_many_documents_is_refused(tmp_path: Path, write_jsonl: Make, words: Make) -> None:
    write_jsonl(tmp_path / "raw" / "a" / "x.jsonl", [{"text": " ".join(words(1, 1000))}])
    with pytest.raises(InputError, match=r"the raw text holds 6,\d\d\d characters .* 50 documents were asked for"):
        synth(small(), str(tmp_path / "raw"), documents=50, out=tmp_path / "corpus")
    assert [entry.name for entry in tmp_path.iterdir()] == ["raw"]


def test_raw_files_without_text_are_refused(tmp_path: Path, write_jsonl: Make) -> None:
    write_jsonl(tmp_path / "raw" / "a" / "x.jsonl", [{"text": "short"}, {"body": "x" * 5000}])
    with pytest.raises(InputError, match=r"hold no text of 1500 characters or more in the fields .* \(text\)"):
        synth(small(), str(tmp_path / "raw"), documents=50, out=tmp_path / "corpus")


def test_a_corpus_that_is_there_is_kept_and_another_is_not_overwritten(raw: Path, tmp_path: Path) -> None:
    recipe, out = small(copies={}, templates=[]), tmp_path / "corpus"
    synth(recipe, str(raw), documents=20, out=out)
    before = (out / "corpus.json").stat()
    synth(recipe, str(raw), documents=20, out=out)
    assert (out / "corpus.json").stat() == before
    with pytest.raises(InputError, match="holds another corpus \\(20 documents of recipe 'small', seed 0\\)"):
        synth(recipe, str(raw), documents=21, out=out)
    with pytest.raises(InputError, match="is no corpus"):
        synth(recipe, str(raw), documents=20, out=raw)


def test_a_damaged_raw_file_leaves_nothing_behind(raw: Path, tmp_path: Path) -> None:
    data = zstandard.compress(b'{"text": "x"}\n' * 100)
    (tmp_path / "raw" / "a").mkdir(parents=True)
    (tmp_path / "raw" / "a" / "x.jsonl.zst").write_bytes(data[:-3])
    with pytest.raises(DataError, match="is cut off"):
        synth(small(), str(tmp_path / "raw"), documents=20, out=tmp_path / "corpus")
    assert [entry.name for entry in tmp_path.iterdir()] == ["raw"]
