"""Overlap against brute force over Python sets, and against the ledger of a build."""

from __future__ import annotations

import itertools
import string
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dataproc.dedup.overlap import Overlap, overlap
from manifest.errors import InputError, WrongArtifact

Make = Callable[..., Any]

THRESHOLD = 0.6
BANDS = (128, 1)  # these miss no pair


@pytest.fixture(scope="module")
def built(mixed: Any, tmp_path_factory: pytest.TempPathFactory, build: Make, dedup_recipe: Make) -> Make:
    store = tmp_path_factory.mktemp("store")

    def run(*, until: str = "ledger", **dedup: Any) -> Any:
        dedup = {"threshold": THRESHOLD, "bands": BANDS, **dedup}
        return build(dedup_recipe(mixed.sources, **dedup), mixed.raw, store, until=until)

    return run


@pytest.fixture(scope="module")
def found(built: Make) -> Overlap:
    """The overlap of `mixed`."""
    return overlap([built().published[0].uri])


def shingles(text: str) -> set[str]:
    cleaned = " ".join("".join(c for c in text.lower() if c not in string.punctuation).split())
    return {cleaned[i : i + 13] for i in range(len(cleaned) - 12)}


@pytest.fixture(scope="module")
def clusters(mixed: Any) -> list[set[str]]:
    """The components of all pairs."""
    sets = {i: shingles(text) for i, text in mixed.texts.items()}
    label = {i: i for i in sets}
    for a, b in itertools.combinations(sets, 2):
        union = sets[a] | sets[b]
        alike = len(sets[a] & sets[b]) / len(union) >= THRESHOLD if union else mixed.texts[a] == mixed.texts[b]
        if alike and label[a] != label[b]:
            old, new = label[b], label[a]
            label = {i: new if one == old else one for i, one in label.items()}
    members: dict[str, set[str]] = {}
    for i, one in label.items():
        members.setdefault(one, set()).add(i)
    return list(members.values())


def test_a_document_is_shared_if_its_cluster_has_another_one_in_that_source(
    found: Overlap, mixed: Any, clusters: list[set[str]]
) -> None:
    shared: Counter[tuple[str, str]] = Counter()
    characters: Counter[tuple[str, str]] = Counter()
    for cluster in clusters:
        for i in cluster:
            for source in {other[0] for other in cluster - {i}}:
                shared[i[0], source] += 1
                characters[i[0], source] += len(mixed.texts[i])
    assert len(shared) == 9
    for a, b in itertools.product(found.sources, repeat=2):
        cell = found.shared[a][b]
        assert (cell.documents, cell.tokens) == (shared[a, b], round(characters[a, b] / 4))
        assert cell.share == pytest.approx(shared[a, b] / sum(i[0] == a for i in mixed.texts), abs=1e-6)


def test_a_document_is_elsewhere_if_its_cluster_has_one_in_any_other_source(
    found: Overlap, clusters: list[set[str]]
) -> None:
    mixed_clusters = [cluster for cluster in clusters if len({i[0] for i in cluster}) > 1]
    expected = Counter(i[0] for cluster in mixed_clusters for i in cluster)
    assert {name: share.documents for name, share in found.elsewhere.items()} == expected
    for name, share in found.elsewhere.items():
        others = [cell.documents for other, cell in found.shared[name].items() if other != name]
        assert max(others) <= share.documents <= sum(others)


@pytest.mark.parametrize("keep", [["source_order", "longest", "id"], ["longest", "id"]])
def test_what_is_lost_to_whom_is_what_global_dedup_removes(built: Make, mixed: Any, keep: list[str]) -> None:
    build = built(keep=keep)
    found = overlap([build.published[0].uri])
    rows = build.rows("ledger", "global")
    removed = Counter((row["source"], row["survivor_source"]) for row in rows)
    characters: Counter[tuple[str, str]] = Counter()
    for row in rows:
        characters[row["source"], row["survivor_source"]] += len(mixed.texts[row["id"]])
    for a, b in itertools.product(found.sources, repeat=2):
        cell = found.lost[a][b]
        assert (cell.documents, cell.tokens) == (removed[a, b], round(characters[a, b] / 4))
    assert found.keep == tuple(keep)


def test_overlap_is_mutual_and_holds_what_is_lost_to_others(found: Overlap) -> None:
    for a, b in itertools.permutations(found.sources, 2):
        assert (found.shared[a][b].documents > 0) == (found.shared[b][a].documents > 0)
        assert found.lost[a][b].documents <= found.shared[a][b].documents
    assert found.lost["a"]["b"].documents == 0 < found.lost["b"]["a"].documents


def test_another_keep_order_can_be_asked_for(built: Make, found: Overlap) -> None:
    other = overlap([built().published[0].uri], keep=("longest", "id"))
    assert other == overlap([built(keep=["longest", "id"]).published[0].uri])
    assert other.lost != found.lost
    assert other.shared == found.shared


def test_totals_are_of_all_documents(found: Overlap, mixed: Any) -> None:
    for name, total in found.total.items():
        texts = [text for i, text in mixed.texts.items() if i.startswith(name)]
        assert (total.documents, total.tokens) == (len(texts), round(sum(map(len, texts)) / 4))


# ---- where it is looked for


def test_a_local_build_that_holds_out_has_the_same_overlap(built: Make, found: Overlap) -> None:
    mixture = built(until="mixtures", scope="local", holdout=0.05).published[0]
    other = overlap([mixture.uri])
    assert {a: {b: cell.documents for b, cell in row.items()} for a, row in other.shared.items()} == {
        a: {b: cell.documents for b, cell in row.items()} for a, row in found.shared.items()
    }
    assert all(rate.measured for rate in other.tokens.values())


def test_clusters_themselves_will_do(built: Make, found: Overlap) -> None:
    assert overlap([built().artifact("clusters", "global").uri]) == found


def test_local_clusters_are_refused_with_a_way_to_get_global_ones(built: Make) -> None:
    ledgers = [item.uri for item in built(scope="local").published]
    with pytest.raises(InputError, match=r"clusters of single sources only.*dedup\.scope is global.*--until clusters"):
        overlap(ledgers)


def test_what_was_not_made_from_clusters_is_refused(built: Make) -> None:
    with pytest.raises(WrongArtifact, match=r"signatures/a at .* was not made from clusters; overlap reads"):
        overlap([built().artifact("signatures", "a").uri])


def test_two_different_clusterings_are_refused(built: Make) -> None:
    with pytest.raises(InputError, match="two different clusters/global"):
        overlap([built().published[0].uri, built(threshold=0.9).published[0].uri])


def test_it_says_what_makes_near_duplicates_of_an_unverified_build(built: Make, found: Overlap) -> None:
    assert found.criterion == f"Jaccard ≥ {THRESHOLD:g} of char 13-grams"
    unverified = overlap(
        [built(verify="none", bands=(9, 13), gates={"min_precision": 0, "max_source_loss": 1}).published[0].uri]
    )
    assert unverified.criterion == "a shared band of 9 × 13 over char 13-grams, unchecked"


# ---- the command


def test_the_command_prints_the_path_of_the_record(zygote: Any, built: Make, found: Overlap, tmp_path: Path) -> None:
    outcome = zygote.run("overlap", built().published[0].uri, "--out", tmp_path)
    assert (outcome.code, outcome.stdout) == (0, f"{tmp_path / 'overlap.json'}\n")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["overlap.json", "overlap.md", "overlap.png"]
    assert Overlap.model_validate_json((tmp_path / "overlap.json").read_bytes()) == found
    rows = [line for line in (tmp_path / "overlap.md").read_text().splitlines() if line.startswith("| b |")]
    assert f"| b | {found.total['b'].documents} | {found.elsewhere['b'].documents} |" in rows[0]
    assert [len(row.split("|")) - 3 for row in rows[1:]] == [3, 3]
    assert (tmp_path / "overlap.png").read_bytes().startswith(b"\x89PNG")


def test_the_command_refuses_what_is_not_there(zygote: Any, tmp_path: Path) -> None:
    outcome = zygote.run("overlap", tmp_path / "mixture", "--out", tmp_path / "out")
    assert (outcome.code, outcome.stdout) == (2, "")
    assert outcome.stderr.startswith(f"error: {tmp_path / 'mixture'} has no manifest.json")
    assert not (tmp_path / "out").exists()
