"""A build with tombstones ends, from `deduped` on, in the content of one over raw files without these documents."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from dataproc.dedup.index.remove import remove
from dataproc.dedup.overlap import overlap
from dataproc.dedup.stones import Stones, Tombstone, read
from dataproc.workers import Workers
from manifest.errors import InputError, WrongArtifact
from manifest.record import Artifact

Make = Callable[..., Any]
Texts = Mapping[str, str]
Jaccard = Callable[[str, str], float]
AFTER = [("deduped", "a"), ("deduped", "b"), ("tokenizers", "bpe"), ("tokens", "a"), ("tokens", "b")]


def stones(documents: Iterable[str] = (), texts: Iterable[str] = ()) -> Stones:
    return Stones.of([*(Tombstone(document=d) for d in documents), *(Tombstone(text=t) for t in texts)])


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, build: Make, write_raw: Make) -> Make:
    """(recipe, texts) → a build. All share a store, as one's builds do."""
    store = tmp_path_factory.mktemp("store")

    def run(recipe: Any, texts: Texts, without: Stones | None = None, **options: Any) -> Any:
        raw = write_raw(texts, tmp_path_factory.mktemp("raw"))
        return build(recipe, raw, store, without=without or stones(), **options)

    return run


@pytest.fixture(scope="module")
def heldout_recipe(near_recipe: Make) -> Make:
    def make(scope: str = "global", **overrides: Any) -> Any:
        return near_recipe(dedup={"scope": scope}, holdout={"fraction": 0.2, "max_share": 0.5}, **overrides)

    return make


def digests(built: Any) -> dict[tuple[str, str], str]:
    found = {}
    for kind, name in AFTER:
        manifest = built.artifact(kind, name).manifest
        assert isinstance(manifest, Artifact)
        found[kind, name] = manifest.digest
    return found


def dropping(corpus: Texts, gone: Iterable[str]) -> dict[str, str]:
    return {identifier: text for identifier, text in corpus.items() if identifier not in set(gone)}


# ---- as if they had never been there


@pytest.mark.parametrize("scope", ["global", "local", "none"])
def test_what_follows_is_that_of_raw_files_without_the_documents(
    built: Make, heldout_recipe: Make, corpus: Texts, scope: str
) -> None:
    ids = [*sorted(corpus)[::9], "a/short-1"]
    with_stones = built(heldout_recipe(scope), corpus, stones(ids))
    never = built(heldout_recipe(scope), dropping(corpus, ids))
    assert digests(with_stones) == digests(never)
    assert with_stones.rows("heldout", "all") == never.rows("heldout", "all")
    assert digests(with_stones) != digests(built(heldout_recipe(scope), corpus))


@pytest.mark.parametrize("scope", ["global", "none"])
def test_a_text_is_a_predicate_without_closure(
    built: Make, near_recipe: Make, corpus: Texts, jaccard: Jaccard, scope: str
) -> None:
    texts = [corpus["a/short-3"], corpus[next(i for i in corpus if "06-3" in i)]]
    gone = {i for i, text in corpus.items() if any(jaccard(text, stone) >= 0.8 for stone in texts)}
    near_them = {i for i, text in corpus.items() if any(jaccard(text, corpus[other]) >= 0.8 for other in gone)}
    assert len(gone) > 2
    assert near_them > gone
    with_stones = built(near_recipe(dedup={"scope": scope}), corpus, stones(texts=texts))
    assert digests(with_stones) == digests(built(near_recipe(dedup={"scope": scope}), dropping(corpus, gone)))


def test_of_copies_with_ids_made_from_content_the_others_move_up(built: Make, recipe: Make, words: Make) -> None:
    one, two = " ".join(words(1, 60)), " ".join(words(2, 60))
    texts = {"a/1": one, "a/2": two, "a/3": one, "a/4": one, "b/5": two}
    by_content = recipe(dedup={"scope": "none"})
    base = next(i.removesuffix(".3") for i in built(by_content, texts).ids("documents", "a") if i.endswith(".3"))
    for gone, row in ((base, "a/1"), (f"{base}.2", "a/3")):
        with_stones = built(by_content, texts, stones([gone]))
        assert digests(with_stones) == digests(built(by_content, dropping(texts, [row])))
        assert {i for i in with_stones.ids("deduped", "a") if i.startswith(base)} == {base, f"{base}.2"}


def test_many_shards_and_workers_change_nothing(
    built: Make,
    build: Make,
    heldout_recipe: Make,
    corpus: Texts,
    write_raw: Make,
    tmp_path: Path,
    ray_workers: Workers,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    left_out = stones(["b/short-2"], [corpus["a/short-3"], corpus[min(corpus)]])
    whole = built(heldout_recipe(), corpus, left_out)
    monkeypatch.setattr("dataproc.documents.SHARD_BYTES", 1)
    monkeypatch.setattr("dataproc.normalize.BATCH_BYTES", 1500)
    raw = write_raw(corpus, tmp_path / "raw")
    cut = build(heldout_recipe(), raw, tmp_path / "store", ray_workers, without=left_out)
    assert len(cut.rows("documents", "a")) < sum(identifier[0] == "a" for identifier in corpus)
    for source in "ab":
        assert cut.rows("deduped", source) == whole.rows("deduped", source)


def test_the_overlap_of_such_a_mixture_is_that_of_what_is_left(built: Make, near_recipe: Make, corpus: Texts) -> None:
    ids = sorted(corpus)[::9]
    with_stones = overlap([built(near_recipe(), corpus, stones(ids)).published[0].uri])
    never = overlap([built(near_recipe(), dropping(corpus, ids)).published[0].uri])
    assert (with_stones.total, with_stones.shared, with_stones.lost) == (never.total, never.shared, never.lost)
    assert with_stones.total != overlap([built(near_recipe(), corpus).published[0].uri]).total


# ---- what is built anew


def test_tombstones_that_find_nothing_are_named_and_change_nothing(
    built: Make, heldout_recipe: Make, corpus: Texts, capsys: pytest.CaptureFixture[str]
) -> None:
    absent = stones(["a/who", "c/what"], ["no document has this text"])
    assert built(heldout_recipe(), corpus, absent).id == built(heldout_recipe(), corpus).id
    assert "2 ids are in no source, such as 'a/who'" in capsys.readouterr().err


def test_a_source_without_such_documents_is_as_it_was(built: Make, heldout_recipe: Make, corpus: Texts) -> None:
    ours = min(i for i in corpus if i[0] == "b")
    before, after = built(heldout_recipe(), corpus), built(heldout_recipe(), corpus, stones([ours]))
    assert after.artifact("documents", "a").uri == before.artifact("documents", "a").uri
    assert ours not in after.ids("documents", "b", "documents")
    assert (
        after.artifact("documents", "b").manifest.inputs["documents"].id
        == before.artifact("documents", "b").manifest.id
    )


def test_another_list_that_means_the_same_builds_nothing(built: Make, near_recipe: Make, corpus: Texts) -> None:
    once = built(near_recipe(), corpus, stones(["b/short-4"]))
    assert once.id != built(near_recipe(), corpus).id
    assert built(near_recipe(), corpus, stones(["b/short-4", "b/nobody"])).id == once.id
    assert built(near_recipe(), corpus, stones(texts=[corpus["b/short-4"]])).id == once.id


def test_the_table_of_a_build_counts_them(built: Make, heldout_recipe: Make, corpus: Texts) -> None:
    ours = sorted(i for i in corpus if i[0] == "b")[:3]
    rows = built(heldout_recipe(), corpus, stones(ours)).mixture.summary["sources"]
    assert rows["b"]["tombstoned"] == 3
    assert "tombstoned" not in rows["a"]
    ends = ("unreadable", "short", "duplicates_within", "duplicates_across", "heldout", "near_heldout", "kept")
    assert sum(rows["b"][end] for end in ends) == rows["b"]["records"] - 3


def test_what_is_planned_differs(
    built: Make, near_recipe: Make, corpus: Texts, capsys: pytest.CaptureFixture[str]
) -> None:
    assert built(near_recipe(), corpus).published
    capsys.readouterr()
    assert built(near_recipe(), corpus, stones(["a/short-3"], ["a text of this test only"]), dry=True).published == []
    said = capsys.readouterr().err
    assert "removed/a: would be built" in said
    assert "mixtures/small: would be built" in said


# ---- what is read


def test_tombstones_are_read_from_lines_and_from_an_index(
    shelf: Make, corpus: Texts, tmp_path: Path, built: Make, near_recipe: Make
) -> None:
    ours = [Tombstone(document="a/short-1", reason="asked"), Tombstone(text=corpus["a/short-3"])]
    file = tmp_path / "stones.jsonl"
    file.write_text("".join(json.dumps(stone.model_dump(exclude_defaults=True)) + "\n\n" for stone in ours))
    filled = shelf()
    filled.add(corpus)
    recorded = read(remove(filled.index, ours).uri)
    assert recorded == read(str(file)) == ours
    without = built(near_recipe(), corpus, Stones.of(recorded))
    assert {"a/short-1", "a/short-3"}.isdisjoint(without.ids("documents", "a", "documents"))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "stones.jsonl:2: not JSON"),
        ("[]", "stones.jsonl:2: Input should be"),
        ('{"document": "a/1", "text": "x"}', "stones.jsonl:2: expected a document or a text, one of them"),
        ('{"text": "  "}', "one of them and not empty"),
        ('{"reason": "none"}', "one of them and not empty"),
        ('{"documnet": "a/1"}', "stones.jsonl:2: Extra inputs"),
        ('{"text": "\\ud800"}', "stones.jsonl:2: "),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: str, said: str) -> None:
    file = tmp_path / "stones.jsonl"
    file.write_text('{"document": "a/1"}\n' + line + "\n")
    with pytest.raises(InputError, match=said):
        read(str(file))


def test_what_holds_no_tombstones_is_refused(tmp_path: Path, built: Make, near_recipe: Make, corpus: Texts) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read(str(tmp_path / "none.jsonl"))
    with pytest.raises(WrongArtifact, match="expected a tombstones"):
        read(built(near_recipe(), corpus).artifact("deduped", "a").uri)
