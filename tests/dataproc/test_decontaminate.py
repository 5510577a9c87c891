"""Decontamination in builds: what is found, what leaves, what is said of it, and what is refused."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dataproc.dedup.stones import Stones, Tombstone
from dataproc.pipeline import STAGES
from dataproc.report import contamination_lines
from manifest.artifact import Opened, open_artifact
from manifest.errors import DataError, InputError, RecipeError
from manifest.fields import validate
from manifest.lineage import lineage, nodes
from manifest.record import Artifact

Make = Callable[..., Any]

QUESTIONS = [
    "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May.",
    "Which property of a mineral can be determined just by looking at it in a dark room without any tools?",
    "Who wrote the oldest book about whales really?",
    "Why not?",
]
ANSWER = "She sold 48/2 = 24 clips in May, so 72 in all."


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory, write_jsonl: Make, words: Make) -> Path:
    """Two sources of unlike documents, some with items in them, some near-duplicates; and two evaluation sets."""
    root = tmp_path_factory.mktemp("raw")
    texts = {f"{s}{i}": " ".join(words(100 * s_number + i, 60)) for s_number, s in enumerate("ab") for i in range(12)}
    texts["a1"] += " " + QUESTIONS[0].upper()
    texts["a2"] = f"{QUESTIONS[1]} {texts['a2']} {QUESTIONS[2]}"
    texts["b3"] += " ".join(QUESTIONS[0].split()[:12])  # a word short of a gram
    texts["b4"] += f" x {QUESTIONS[0]} {ANSWER}"
    # Two clusters: of one the survivor is contaminated, of the other a document that dedup removes.
    texts["a8"] = " ".join(words(500, 200)) + f" {QUESTIONS[1]}"
    texts["b8"] = texts["a8"].replace("mineral", "stone").replace("looking", "gazing")
    texts["a9"] = " ".join(words(501, 200)) + texts["b8"].removeprefix(" ".join(words(500, 200)))
    texts["b9"] = texts["a9"].replace("stone", "mineral").replace("gazing", "looking")
    for source in "ab":
        records = [{"id": i, "text": text} for i, text in texts.items() if i[0] == source]
        for number in range(2):
            write_jsonl(root / source / f"{number}.jsonl", records[number::2])
    write_jsonl(root / "eval" / "sums" / "test.jsonl", [{"question": QUESTIONS[0], "answer": ANSWER}])
    choices = [{"said": "x"}, {"said": 5}]
    asked = [{"q": {"stem": q}, "key": f"k{n}", "more": choices} for n, q in enumerate(QUESTIONS[1:])]
    write_jsonl(root / "eval" / "asked" / "part.jsonl", asked)
    return root


AGAINST: dict[str, Any] = {
    "sums": {"files": "eval/sums/*.jsonl", "fields": ["question", "answer"]},
    "asked": {"files": ["eval/asked/*.jsonl"], "fields": "q.stem", "id": "key"},
}
CONTAMINATED = {"a/a1", "a/a2", "b/b4", "a/a8", "b/b9"}
LEAVING = {*CONTAMINATED, "a/a9"}


@pytest.fixture(scope="module")
def asking(recipe: Make) -> Make:
    def make(scope: str = "global", against: dict[str, Any] = AGAINST, **more: Any) -> Any:
        keys = {key: more.pop(key) for key in ("action", "ngram") if key in more}
        return recipe(
            sources={name: {"files": f"{name}/*", "id": "id"} for name in "ab"},
            dedup={"scope": scope, "threshold": 0.7},
            decontaminate={"against": against, **keys} if against else None,
            **more,
        )

    return make


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, asking: Make, raw: Path, build: Make) -> Any:
    return build(asking(), raw, tmp_path_factory.mktemp("built"))


@pytest.fixture
def written(tmp_path: Path, asking: Make) -> Path:
    """The recipe as a file."""
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps(asking().model_dump(mode="json", exclude_none=True)))
    return path


def kept(built: Any) -> set[str]:
    return set.union(*(built.ids("deduped", name) for name in "ab"))


def texts_in(raw: Path) -> dict[str, str]:
    records = [json.loads(line) for file in raw.glob("[ab]/*") for line in file.read_text().splitlines()]
    return {f"{r['id'][0]}/{r['id']}": r["text"] for r in records}


# ---- what is found, and what leaves


def test_spans_say_which_words_of_a_document_are_which_of_an_item(built: Any, raw: Path) -> None:
    texts = texts_in(raw)
    spans, items = built.rows("contamination", "all", "spans"), built.rows("contamination", "all", "items")
    assert {span["id"] for span in spans} == CONTAMINATED
    by_place = {(item["evaluation"], item["file"], item["line"]): item for item in items}

    def plain(text: str) -> str:
        return re.sub(r"\W", "", text.lower())

    for span in spans:
        item = by_place[span["evaluation"], span["file"], span["line"]]
        matched = texts[span["id"]][span["start"] : span["end"]]
        assert plain(matched) == plain(item["text"][span["item_start"] : span["item_end"]])
        assert span["item"] == item["item"]
    (both,) = [span for span in spans if span["id"] == "b/b4"]
    assert (both["item_start"], both["item_end"]) == (0, len(f"{QUESTIONS[0]}\n{ANSWER}") - 1)
    assert sorted(span["item"] for span in spans if span["id"] == "a/a2") == ["k0", "k1"]
    assert [item["matched"] for item in items] == ["n-grams", "n-grams", "whole", "skipped"]


def test_the_cluster_of_a_contaminated_document_leaves_whichever_survived(built: Any, raw: Path) -> None:
    ledger = {row["id"]: row["survivor"] for row in built.rows("ledger", "global")}
    assert ledger == {"b/b8": "a/a8", "b/b9": "a/a9"}
    assert kept(built) == set(texts_in(raw)) - LEAVING - set(ledger)
    leaving = {row["id"]: row["because"] for row in built.rows("contaminated", "all")}
    assert leaving == {**{i: i for i in CONTAMINATED}, "a/a9": "b/b9"}


def test_without_clusters_each_document_answers_for_itself(
    tmp_path: Path, asking: Make, raw: Path, build: Make, built: Any
) -> None:
    alone = build(asking("none"), raw, built.store.root)
    assert kept(alone) == set(texts_in(raw)) - CONTAMINATED
    local = build(asking("local"), raw, built.store.root)
    assert kept(local) == kept(alone)
    assert {b.artifact("contamination", "all").uri for b in (alone, local, built)} == {
        built.artifact("contamination", "all").uri
    }


@pytest.mark.parametrize("scope", ["global", "local", "none"])
def test_what_is_left_is_as_if_the_raw_files_had_never_held_it(
    scope: str, tmp_path: Path, asking: Make, raw: Path, build: Make, built: Any, write_jsonl: Make
) -> None:
    holdout = {"fraction": 0.2, "max_share": 1}
    cleaned = build(asking(scope, holdout=holdout), raw, built.store.root)
    gone = {row["id"] for row in cleaned.rows("contaminated", "all")}
    if scope == "global":
        gone |= {"b/b8"}  # its cluster left with it
    for file in raw.glob("[ab]/*"):
        records = [json.loads(line) for line in file.read_text().splitlines()]
        write_jsonl(tmp_path / file.relative_to(raw), [r for r in records if f"{r['id'][0]}/{r['id']}" not in gone])
    never = build(asking(scope, against={}, holdout=holdout), tmp_path, tmp_path / "store")
    for name in "ab":
        assert cleaned.rows("deduped", name) == never.rows("deduped", name)
        assert digest(cleaned.artifact("deduped", name)) == digest(never.artifact("deduped", name))


def digest(item: Opened) -> str:
    assert isinstance(item.manifest, Artifact)
    return item.manifest.digest


def test_what_is_held_out_is_the_same_and_reported_too(
    tmp_path: Path, asking: Make, raw: Path, build: Make, built: Any
) -> None:
    holdout = {"fraction": 0.5, "max_share": 1}
    cleaned = build(asking("none", holdout=holdout), raw, built.store.root)
    plain = build(asking("none", against={}, holdout=holdout), raw, built.store.root)
    assert cleaned.artifact("heldout", "all").uri == plain.artifact("heldout", "all").uri
    held = cleaned.ids("heldout", "all", "heldout")
    assert held & CONTAMINATED
    assert CONTAMINATED - held
    assert {span["id"] for span in cleaned.rows("contamination", "all", "spans")} == CONTAMINATED
    rows = cleaned.mixture.summary["sources"]
    assert sum(row["contaminated"] for row in rows.values()) == len(
        CONTAMINATED - held - cleaned.ids("heldout", "all", "excluded")
    )
    assert sum(row["heldout"] for row in rows.values()) == len(held)


def test_every_document_is_counted_once(built: Any) -> None:
    ends = (
        "unreadable",
        "short",
        "duplicates_within",
        "duplicates_across",
        "heldout",
        "near_heldout",
        "contaminated",
        "kept",
    )
    rows = built.mixture.summary["sources"]
    for name, row in rows.items():
        assert sum(row[end] for end in ends) == row["records"]
        assert row["kept"] == len(built.rows("deduped", name))
    assert (rows["a"]["contaminated"], rows["b"]["contaminated"]) == (4, 1)


def test_report_removes_nothing_and_says_the_same(asking: Make, raw: Path, build: Make, built: Any) -> None:
    told = build(asking(action="report"), raw, built.store.root)
    plain = build(asking(against={}), raw, built.store.root)
    assert [told.artifact("deduped", name).uri for name in "ab"] == [
        plain.artifact("deduped", name).uri for name in "ab"
    ]
    assert told.artifact("contamination", "all").uri == built.artifact("contamination", "all").uri
    found, removed = told.mixture.summary["contamination"], built.mixture.summary["contamination"]
    assert found == {**removed, "action": "report"}
    assert "contaminated" not in told.mixture.summary["sources"]["a"]
    assert list(contamination_lines(found)) == [
        "contamination (reported only): 5 documents hold words of 3 evaluation items",
        "  sums: 1 of 1 items, in a 1, b 1",
        "  asked: 2 of 3 items, in a 2, b 1; 1 items are too short to be looked for",
    ]


def test_a_source_without_items_is_not_made_anew(asking: Make, raw: Path, build: Make, built: Any) -> None:
    nowhere = {"files": "eval/asked/*", "fields": ["key", "q.stem", "more.said"]}  # nobody writes "k0 Which …"
    plain = build(asking(against={"asked": nowhere}, ngram=64), raw, built.store.root)
    never = build(asking(against={}), raw, built.store.root)
    assert plain.mixture.summary["contamination"]["documents"] == 0
    for name in "ab":
        assert plain.artifact("deduped", name).uri == never.artifact("deduped", name).uri
        assert plain.artifact("deduped", name).uri != built.artifact("deduped", name).uri
    assert plain.rows("contamination", "all", "items")[0]["text"].endswith("tools?\nx\n5")


# ---- the same from any workers, and after any kill


def test_workers_and_shards_do_not_matter(
    tmp_path: Path, asking: Make, raw: Path, build: Make, built: Any, ray_workers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert build(asking(), raw, tmp_path / "ray", ray_workers).id == built.id
    monkeypatch.setattr("dataproc.documents.BATCH_ROWS", 3)
    assert build(asking(), raw, tmp_path / "batches").id == built.id


def test_a_killed_search_goes_on(tmp_path: Path, zygote: Any, written: Path, raw: Path, built: Any) -> None:
    command = ["build", written, "--raw", raw, "--workers", "serial", "--until", "contamination", "--out"]
    ready = tmp_path / "ready"
    for kind in ("documents", "signatures", ".cache"):
        shutil.copytree(built.store.root / kind, ready / kind)
    whole = shutil.copytree(ready, tmp_path / "whole")
    done = zygote.run(*command, whole)
    expected = built.artifact("contamination", "all").manifest.id
    assert open_artifact(done.stdout.strip()).manifest.id == expected
    for moment in (2, done.calls // 2, done.calls - 1):
        store = shutil.copytree(ready, tmp_path / str(moment))
        assert zygote.run(*command, store, kill_at=moment).code == -9
        assert open_artifact(zygote.run(*command, store).stdout.strip()).manifest.id == expected


# ---- what is said


def test_a_dry_run_names_the_stage_and_the_sets(tmp_path: Path, zygote: Any, written: Path, raw: Path) -> None:
    plan = zygote.run("build", written, "--raw", raw, "--out", tmp_path / "store", "--dry-run")
    assert plan.code == 0
    assert "contamination/all: would be built" in plan.stderr
    assert "contaminated/all: would be built" in plan.stderr
    assert "evaluation set asked: 3 items in 1 files; 1 have less than 13 words" in " ".join(plan.stderr.split())
    assert not (tmp_path / "store").exists()


def test_lineage_goes_back_to_the_evaluation_files(built: Any, raw: Path) -> None:
    names = {node.name for node in nodes(lineage(built.published[0].uri, verify=True)) if node.kind == "raw"}
    assert {"eval/sums/test.jsonl", "eval/asked/part.jsonl"} < names


def test_a_changed_evaluation_file_is_another_build(
    tmp_path: Path, asking: Make, raw: Path, build: Make, built: Any, write_jsonl: Make
) -> None:
    file = raw / "eval" / "sums" / "test.jsonl"
    before = file.read_text()
    try:
        file.write_text(before + json.dumps({"question": "what else " * 9, "answer": ""}) + "\n")
        other = build(asking(), raw, built.store.root)
    finally:
        file.write_text(before)
    assert other.id != built.id
    assert other.artifact("contamination", "all").uri != built.artifact("contamination", "all").uri
    assert other.artifact("documents", "a").uri == built.artifact("documents", "a").uri


def test_the_card_shows_documents_beside_items(built: Any) -> None:
    cards = (built.store.root / "cards").glob("*")
    (card,) = [card for card in cards if json.loads((card / "card.json").read_text())["id"] == built.id]
    page, text = (card / "index.html").read_text(), (card / "README.md").read_text()
    found = json.loads((card / "card.json").read_text())["decontamination"]
    assert {sample["evaluation"] for sample in found["samples"]} == {"sums", "asked"}
    for sample in found["samples"]:
        assert sample["id"] in CONTAMINATED
        assert f"<mark>{sample['match']}</mark>" in page.replace("&#39;", "'")
        assert sample["item"] in text
    assert "<th>contaminated</th>" in page
    assert "| contaminated |" in text


def test_the_gate_on_what_a_source_loses_counts_it(tmp_path: Path, asking: Make, raw: Path, build: Make) -> None:
    strict = asking("none")
    gates = strict.dedup.gates.model_copy(update={"max_source_loss": 0.2})
    strict = strict.model_copy(update={"dedup": strict.dedup.model_copy(update={"gates": gates})})
    with pytest.raises(DataError, match=r"hold-out and decontamination \(3\) leave 9 of 12 documents of source 'a'"):
        build(strict, raw, tmp_path, until="deduped")


def test_local_paths_are_as_the_shell_has_them(
    tmp_path: Path, asking: Make, raw: Path, build: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(raw / "eval")
    local = {
        "sums": {**AGAINST["sums"], "files": ["./sums/*.jsonl"]},
        "asked": {**AGAINST["asked"], "files": [f"{raw}/eval/*/part.jsonl"]},
    }
    made = build(asking(against=local), raw, tmp_path, until="contamination")
    assert made.published[0].manifest.summary["items"] == 3
    assert {row["file"] for row in made.rows("contamination", "all", "items")} == {
        "./sums/test.jsonl",
        f"{raw}/eval/asked/part.jsonl",
    }


def test_what_falls_under_a_tombstone_is_not_looked_at(
    tmp_path: Path, asking: Make, raw: Path, build: Make, built: Any
) -> None:
    stones = Stones.of([Tombstone(document="a/a1")])
    without = build(asking(), raw, built.store.root, without=stones)
    assert {row["id"] for row in without.rows("contamination", "all", "spans")} == CONTAMINATED - {"a/a1"}


# ---- what is refused


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"ngram": 1}, "greater than or equal to 2"),
        ({"action": "drop"}, "'remove' or 'report'"),
        ({"against": {}}, "at least 1 item"),
        ({"against": {"a": {"files": "x"}}}, "'decontaminate.against.a.fields' is missing"),
        ({"against": {"a": {"files": "../x/*", "fields": "q"}}}, None),
        ({"against": {"a": {"files": "x/../y", "fields": "q"}}}, "not below --raw"),
        ({"against": {"a": {"files": "x", "fields": ["q", "q"]}}}, "a field is named twice"),
        ({"against": {"uri": {"files": "x", "fields": "q"}}}, "evaluation set 'uri'"),
        ({"against": {"a": {"file": "x", "fields": "q"}}}, "did you mean 'files'"),
    ],
)
def test_a_recipe_that_does_not_add_up(given: dict[str, Any], said: str | None, recipe: Make) -> None:
    fields = recipe().model_dump(mode="json", exclude_none=True)
    section = {"against": AGAINST, **given}
    if said is None:
        validate(type(recipe()), {**fields, "decontaminate": section}, "recipe")
        return
    with pytest.raises(RecipeError, match=re.escape(said)):
        validate(type(recipe()), {**fields, "decontaminate": section}, "recipe")


def test_two_sets_of_one_name_are_refused(tmp_path: Path, zygote: Any) -> None:
    one = "    sums: {files: 'x', fields: [q]}\n"
    path = tmp_path / "recipe.yaml"
    path.write_text(f"name: r\ndecontaminate:\n  against:\n{one}{one}")
    outcome = zygote.run("build", path, "--raw", tmp_path, "--out", tmp_path / "store")
    assert (outcome.code, outcome.stdout) == (2, "")
    assert "key 'sums' comes twice" in outcome.stderr


@pytest.mark.parametrize(
    ("content", "evaluation", "said"),
    [
        (None, {"files": "eval/nothing/*"}, "evaluation set 'bad': no file matches 'eval/nothing/*'"),
        (
            [{"question": "x"}, {"prompt": "y", "n": 1}],
            {},
            "bad.jsonl:2: field 'question' is missing (fields: prompt, n)",
        ),
        ([{"question": {"a": 1}}], {}, "bad.jsonl:1: field 'question' is dict; expected text"),
        ([{"question": "x"}], {"id": "n"}, "bad.jsonl:1: the id 'n' is None"),
        ("{no json\n", {}, "bad.jsonl:1: not JSON"),
        ([{"question": "five words are not enough"}] * 3, {}, "none of its 3 items is long enough"),
        ("", {}, "is empty (0 bytes)"),
    ],
)
def test_an_evaluation_file_that_cannot_be_used(
    tmp_path: Path, asking: Make, raw: Path, build: Make, write_jsonl: Make, content: Any, evaluation: Any, said: str
) -> None:
    file = tmp_path / "eval" / "bad.jsonl"
    if isinstance(content, list):
        write_jsonl(file, content)
    elif content is not None:
        file.parent.mkdir()
        file.write_text(content)
    against = {"bad": {"files": f"{tmp_path}/eval/*.jsonl", "fields": "question", **evaluation}}
    with pytest.raises(InputError, match=re.escape(said)):
        build(asking(against=against), raw, tmp_path / "store")
    assert not (tmp_path / "store" / "documents").exists(), "it is said before the work"


def test_stages_before_it_ask_for_no_evaluation_file(tmp_path: Path, asking: Make, raw: Path, build: Make) -> None:
    nowhere = {"bad": {"files": "eval/nothing/*", "fields": "q"}}
    for stage in STAGES[:2]:
        assert build(asking(against=nowhere), raw, tmp_path, until=stage).published
