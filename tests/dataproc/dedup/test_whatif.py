"""What-if against the builds that it foretells, and against brute force over Python sets."""

from __future__ import annotations

import itertools
import json
import string
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from dataproc.dedup import group, group_levels, links, whatif
from dataproc.dedup.whatif import WhatIf, ask, parse_bands, parse_thresholds
from dataproc.pipeline import near
from dataproc.workers import MEMORY_BYTES, Serial, Task, Workers
from manifest.errors import InputError, NotAnArtifact, WrongArtifact

Make = Callable[..., Any]
Counts = dict[str, tuple[int, int]]

THRESHOLDS = (0.5, 0.7, 0.95)
BANDS = (42, 3)


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="session")
def built(mixed: Any, store: Path, build: Make, dedup_recipe: Make) -> Make:
    """A build of `mixed` up to a stage. All go into one store, so that they share what they can."""

    def run(*, until: str = "deduped", **dedup: Any) -> Any:
        return build(dedup_recipe(mixed.sources, **dedup), mixed.raw, store, until=until)

    return run


@pytest.fixture(scope="session")
def signatures(built: Make) -> list[str]:
    """The signatures of `mixed`, in order of its sources."""
    return [item.uri for item in built(until="signatures").published]


@pytest.fixture
def answer(tmp_path: Path, signatures: list[str]) -> Make:
    """What-if over artifacts; over `mixed` if none are named."""

    def run(
        *artifacts: str, thresholds: Sequence[float] = THRESHOLDS, workers: Workers | None = None, **how: Any
    ) -> WhatIf:
        asked = ask(artifacts or signatures, thresholds, **how)
        return whatif.whatif(asked, workers=workers or Serial(), scratch=tmp_path / "scratch")

    return run


def foretold(found: WhatIf, threshold: float, scope: str) -> Counts:
    point = next(p for p in found.points if (p.threshold, p.scope) == (threshold, scope))
    counted = {name: (kept.documents, kept.characters) for name, kept in point.sources.items()}
    total = tuple(sum(count[i] for count in counted.values()) for i in (0, 1))
    assert total == (point.total.documents, point.total.characters)
    return counted


def kept(build: Any) -> Counts:
    """Documents and characters that a build keeps of each source."""
    rows = {item.manifest.name: build.rows("deduped", item.manifest.name) for item in build.published}
    return {name: (len(found), sum(len(row["text"]) for row in found)) for name, found in rows.items()}


# ---- builds


@pytest.mark.parametrize("scope", ["none", "local", "global"])
def test_the_counts_are_those_of_builds_with_the_same_bands(answer: Make, built: Make, scope: str) -> None:
    found = answer()
    assert found.bands == BANDS
    for threshold in THRESHOLDS:
        assert foretold(found, threshold, scope) == kept(built(scope=scope, threshold=threshold, bands=BANDS))
    counts = [foretold(found, threshold, scope) for threshold in THRESHOLDS]
    assert len({str(count) for count in counts}) == (1 if scope == "none" else len(THRESHOLDS))


@pytest.mark.parametrize("keep", [["id"], ["longest", "id"], ["longest", "source_order", "id"]])
def test_the_survivors_are_chosen_in_keep_order(answer: Make, built: Make, keep: list[str]) -> None:
    found = answer(thresholds=[0.5], keep=tuple(keep))
    for scope in ("local", "global"):
        assert foretold(found, 0.5, scope) == kept(built(scope=scope, threshold=0.5, bands=BANDS, keep=keep))


def test_words_are_foretold_like_characters(answer: Make, built: Make) -> None:
    sources = [item.uri for item in built(until="signatures", unit="word", ngram=3).published]
    found = answer(*sources, thresholds=[0.7, 0.9])
    build = built(unit="word", ngram=3, threshold=0.7, bands=found.bands)
    assert foretold(found, 0.7, "global") == kept(build)


def test_other_bands_may_be_given(answer: Make, built: Make) -> None:
    few = (3, 30)
    found = answer(thresholds=[0.7], bands=few)
    assert foretold(found, 0.7, "global") == kept(built(threshold=0.7, bands=few))
    assert foretold(found, 0.7, "global") != foretold(answer(thresholds=[0.7]), 0.7, "global")


@pytest.mark.parametrize("cap", [1, 2])
def test_a_cap_leaves_out_the_same_pairs_as_in_builds(
    answer: Make, built: Make, monkeypatch: pytest.MonkeyPatch, cap: int
) -> None:
    """Few bands, so that no other makes up for what the cap leaves out of one."""
    bands, threshold = (3, 2), 0.8
    uncapped = answer(thresholds=[0.6, threshold], bands=bands)
    for module in (links, near, group_levels, whatif):
        monkeypatch.setattr(module, "BUCKET_CAP", cap)
    found = answer(thresholds=[0.6, threshold], bands=bands)
    assert found.compared.capped_buckets > 0
    for scope in ("local", "global"):
        assert foretold(found, threshold, scope) == kept(built(scope=scope, threshold=threshold, bands=bands))
    assert foretold(found, threshold, "global") != foretold(uncapped, threshold, "global")


def test_workers_and_partitions_do_not_change_the_answer(
    answer: Make, ray_workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_levels, "BUCKET_CAP", 3)
    whole = answer(bands=(8, 3))
    assert answer(bands=(8, 3), workers=ray_workers) == whole
    monkeypatch.setattr(group, "BYTES_PER_KEY", MEMORY_BYTES // 30)
    assert answer(bands=(8, 3)).points == whole.points


# ---- brute force


def shingles(text: str) -> set[str]:
    cleaned = " ".join("".join(c for c in text.lower() if c not in string.punctuation).split())
    return {cleaned[i : i + 13] for i in range(len(cleaned) - 12)}


def survivors(texts: dict[str, str], threshold: float) -> Counter[str]:
    """How many documents of each source are the first of their component: earlier source, longer, smaller id."""
    sets = {i: shingles(text) for i, text in texts.items()}
    label = {i: i for i in texts}
    for a, b in itertools.combinations(texts, 2):
        union = sets[a] | sets[b]
        alike = len(sets[a] & sets[b]) / len(union) >= threshold if union else texts[a] == texts[b]
        if alike and label[a] != label[b]:
            old, new = label[b], label[a]
            label = {i: new if one == old else one for i, one in label.items()}
    order = sorted(texts, key=lambda i: (i[0], -len(texts[i]), i))
    first = {label[i]: i for i in reversed(order)}
    return Counter(i[0] for i in first.values())


def test_with_bands_that_miss_nothing_it_is_the_components_of_all_pairs(answer: Make, mixed: Any) -> None:
    found = answer(thresholds=[0.4, 0.75], bands=(128, 1))  # misses a pair at 0.4 with probability 4e-29
    for threshold in (0.4, 0.75):
        together = survivors(mixed.texts, threshold)
        assert {s: documents for s, (documents, _) in foretold(found, threshold, "global").items()} == together
        for source, (documents, _) in foretold(found, threshold, "local").items():
            own = {i: text for i, text in mixed.texts.items() if i.startswith(source)}
            assert survivors(own, threshold) == {source: documents}


# ---- what it is asked


def test_the_artifacts_of_a_build_lead_to_the_same_answer(answer: Make, built: Make) -> None:
    for_all = answer()
    build = built(until="mixtures", holdout=0.2)
    for kind, name in (("mixture", "small"), ("clusters", "global"), ("ledger", "global"), ("deduped", "b")):
        found = answer(build.artifact(kind, name).uri)
        assert found.sources == for_all.sources
        assert [foretold(found, t, "global") for t in THRESHOLDS] == [
            foretold(for_all, t, "global") for t in THRESHOLDS
        ]


def test_sources_are_in_the_order_in_which_they_are_named(answer: Make, signatures: list[str]) -> None:
    found = answer(*reversed(signatures))
    assert found.sources == ("c", "b", "a")
    assert foretold(found, 0.7, "global")["c"] > foretold(answer(), 0.7, "global")["c"]


def test_a_recipe_states_the_order_of_sources_and_who_is_kept(
    answer: Make, mixed: Any, store: Path, build: Make, dedup_recipe: Make
) -> None:
    recipe = dedup_recipe(["b", "c", "a"], keep=["longest", "id"], threshold=0.7, bands=BANDS)
    built = build(recipe, mixed.raw, store)
    found = answer(built.published[0].uri)
    assert (found.sources, found.keep) == (("b", "c", "a"), ("longest", "id"))
    counts = {name: row["kept"] for name, row in built.mixture.summary["sources"].items()}
    assert {name: documents for name, (documents, _) in foretold(found, 0.7, "global").items()} == counts


def test_a_source_of_which_nothing_is_left_is_counted_as_none(
    answer: Make, corpus: Make, store: Path, build: Make, recipe: Make, words: Make
) -> None:
    text = " ".join(words(1, 60))
    few = corpus({"a/1": "too short", "b/1": text, "b/2": text + " more", "c/1": text})
    sources = {name: {"files": f"{name}/*", "id": "id"} for name in few.sources}
    some = recipe(sources=sources, clean={"min_chars": 50}, dedup={"scope": "local"})
    built = build(some, few.raw, store, until="signatures")
    found = answer(*(item.uri for item in built.published), thresholds=[0.8])
    assert {s: documents for s, (documents, _) in foretold(found, 0.8, "local").items()} == {"a": 0, "b": 1, "c": 1}
    assert {s: documents for s, (documents, _) in foretold(found, 0.8, "global").items()} == {"a": 0, "b": 1, "c": 0}


def test_tokens_are_those_of_the_stream_where_nothing_was_removed(answer: Make, built: Make) -> None:
    build = built(until="mixtures", scope="none", holdout=1e-9)
    found = answer(build.published[0].uri)
    for name in found.sources:
        tokens = build.artifact("tokens", name).manifest.summary["tokens"]
        assert found.kept("none", name)[0].tokens == pytest.approx(tokens, rel=1e-5)
        assert found.tokens[name].measured


def test_without_a_stream_four_characters_are_a_token(answer: Make) -> None:
    found = answer()
    for point in found.points:
        assert all(kept.tokens == round(kept.characters / 4) for kept in point.sources.values())
    assert not any(rate.measured for rate in found.tokens.values())


# ---- killed and called again


class Stopping(Serial):
    """Stops after so many tasks."""

    def __init__(self, after: int) -> None:
        self.left = self.after = after

    def _run(self, tasks: Sequence[Task]) -> Iterator[None]:
        for task in tasks:
            if self.left == 0:
                raise KeyboardInterrupt
            self.left -= 1
            yield task()

    @property
    def done(self) -> int:
        return self.after - self.left


def test_a_killed_call_goes_on_where_it_was(answer: Make, tmp_path: Path) -> None:
    whole = Stopping(10**6)
    expected = answer(workers=whole)
    done = 0
    for stop in (1, 3, 40, whole.done // 2):
        workers = Stopping(stop - done)
        with pytest.raises(KeyboardInterrupt):
            answer(workers=workers)
        done += workers.done
    rest = Stopping(10**6)
    assert answer(workers=rest) == expected
    assert done + rest.done == whole.done
    assert [file.suffix for file in (tmp_path / "scratch").iterdir()] == [".lock"]


# ---- wrong input


def test_thresholds_are_the_numbers_of_a_recipe() -> None:
    found = parse_thresholds("0.5:0.95:0.05")
    assert found == tuple(yaml.safe_load("[0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95]"))
    assert parse_thresholds("0.9,0.7, 0.8,0.7") == (0.7, 0.8, 0.9)
    assert parse_thresholds("0.8") == parse_thresholds("0.8:0.85:0.1") == (0.8,)


@pytest.mark.parametrize(
    "spec",
    [
        "",
        "0.5:0.95",
        "0.9:0.5:0.1",
        "0.5:0.9:0",
        "0:0.9:0.1",
        "0.5,1",
        "a:b:c",
        "nan",
        "0.1:0.9:0.00001",
        "1e-999",
        "0.5:0.9:1e-999999999",
    ],
)
def test_a_bad_list_of_thresholds_is_refused(spec: str) -> None:
    with pytest.raises(InputError, match=r"--thresholds .*0\.5:0\.95:0\.05"):
        parse_thresholds(spec)


@pytest.mark.parametrize("spec", ["21", "21,6,1", "21,x", "0,6", "-1,6"])
def test_bad_bands_are_refused(spec: str) -> None:
    with pytest.raises(InputError, match="--bands"):
        parse_bands(spec)


def test_bands_that_the_signatures_do_not_have_are_refused(signatures: list[str]) -> None:
    with pytest.raises(InputError, match="22,6: 132 values, but the signatures have 128"):
        ask(signatures, [0.8], bands=(22, 6))
    with pytest.raises(InputError, match=r"threshold 0\.01.*cannot catch"):
        ask(signatures, [0.01])


def test_signatures_of_different_makes_are_refused_by_name(built: Make, signatures: list[str]) -> None:
    other = next(item for item in built(until="signatures", ngram=9).published if item.manifest.name == "b")
    with pytest.raises(InputError, match=r"signatures/a at .* has ngram 13, but signatures/b at .* has ngram 9"):
        ask([signatures[0], other.uri], [0.8])


def test_two_signatures_of_one_source_are_refused(
    corpus: Make, store: Path, build: Make, dedup_recipe: Make, signatures: list[str]
) -> None:
    more = corpus({"a/other": "a text of which there are no others, and of some length"})
    (other,) = build(dedup_recipe(["a"]), more.raw, store, until="signatures").published
    with pytest.raises(WrongArtifact, match="source 'a' has two different signatures"):
        ask([*signatures, other.uri], [0.8])


def test_what_was_not_made_from_signatures_is_refused(built: Make, signatures: list[str], tmp_path: Path) -> None:
    build = built(until="mixtures", scope="none")
    for artifact in (build.published[0], build.artifact("documents", "a")):
        with pytest.raises(WrongArtifact, match=r"was not made from signatures; give a mixture.*dedup\.scope"):
            ask([*signatures, artifact.uri], [0.8])
    with pytest.raises(NotAnArtifact, match="nowhere"):
        ask([str(tmp_path / "nowhere" / "mixture")], [0.8])


def test_an_input_that_is_gone_is_named(mixed: Any, build: Make, dedup_recipe: Make, tmp_path: Path) -> None:
    built = build(dedup_recipe(mixed.sources), mixed.raw, tmp_path / "store", until="ledger")
    gone = Path(built.artifact("signatures", "b").uri)
    gone.rename(tmp_path / "elsewhere")
    with pytest.raises(NotAnArtifact, match=rf"was made from signatures/b .*, but at {gone} there is none; restore it"):
        ask([built.published[0].uri], [0.8])


def test_builds_with_different_keep_orders_need_one_to_be_named(built: Make) -> None:
    one, other = (built(until="ledger", keep=keep).published[0].uri for keep in (["id"], ["longest", "id"]))
    with pytest.raises(InputError, match=r"id \(ledger/global at .*longest,id \(.*--keep"):
        ask([one, other], [0.8])
    assert ask([one, other], [0.8], keep=("id",)).keep == ("id",)


# ---- the command


def test_the_command_prints_the_path_of_the_record_and_leaves_nothing_else(
    zygote: Any, signatures: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    outcome = zygote.run("whatif", *signatures, "--thresholds", "0.6,0.8", "--out", out, "--workers", "serial")
    assert (outcome.code, outcome.stdout) == (0, f"{out / 'whatif.json'}\n")
    assert sorted(file.name for file in out.iterdir()) == [".drafts", "whatif.json", "whatif.md", "whatif.png"]
    found = WhatIf.model_validate_json((out / "whatif.json").read_bytes())
    assert [(p.threshold, p.scope) for p in found.points] == list(
        itertools.product((0.6, 0.8), ("none", "local", "global"))
    )
    page = (out / "whatif.md").read_text()
    assert f"| 0.8 | global | {found.kept('global')[1].documents:,} |" in page
    assert (out / "whatif.png").read_bytes().startswith(b"\x89PNG")


def test_the_command_prints_the_record_on_request(zygote: Any, signatures: list[str], tmp_path: Path) -> None:
    command = ["whatif", signatures[0], "--thresholds", "0.8", "--out", tmp_path, "--workers", "serial"]
    outcome = zygote.run(*command, "--json", "--keep", "longest,id")
    assert json.loads(outcome.stdout) == json.loads((tmp_path / "whatif.json").read_bytes())
    assert json.loads(outcome.stdout)["keep"] == ["longest", "id"]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--thresholds", "0.9:0.5:0.1"], "--thresholds 0.9:0.5:0.1: expected"),
        (["--keep", "shortest,id"], "--keep: 'keep.0'"),
        (["--keep", "longest"], "end with 'id'"),
        (["--bands", "twenty"], "--bands twenty: expected"),
        (["--out", "s3://bucket/out"], "--out s3://bucket/out: results are written to a directory"),
    ],
)
def test_a_wrong_flag_ends_with_2_and_a_line(
    zygote: Any, signatures: list[str], tmp_path: Path, flags: list[str], said: str
) -> None:
    outcome = zygote.run("whatif", *signatures, "--out", tmp_path / "out", *flags)
    assert (outcome.code, outcome.stdout) == (2, "")
    (line,) = outcome.stderr.splitlines()
    assert line.startswith("error: ")
    assert said in line
    assert not (tmp_path / "out").exists()
