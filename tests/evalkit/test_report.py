from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from dataproc.documents import rows_of
from evalkit.checkpoint import open_subject
from evalkit.compare import differences_of, open_report
from evalkit.recipe import EvalRecipe
from evalkit.report import score
from evalkit.tasks.bits_per_byte import ALL
from manifest.artifact import Opened, verify
from manifest.errors import WrongArtifact
from manifest.lineage import lineage, nodes
from manifest.report import Report
from manifest.store import LocalStore, open_store

RECIPE = EvalRecipe(name="tiny", tasks=("bits_per_byte",))


@pytest.fixture(scope="module")
def store(mixture: Opened) -> LocalStore:
    found = open_store(Path(mixture.uri).parent.parent)
    assert isinstance(found, LocalStore)
    return found


@pytest.fixture(scope="module")
def before(store: LocalStore, untrained: Path) -> Opened:
    return score(RECIPE, open_subject(untrained), store, compared=None, batch_tokens=512)


@pytest.fixture(scope="module")
def after(store: LocalStore, trained: Path, before: Opened) -> Opened:
    return score(RECIPE, open_subject(trained), store, compared=open_report(before.uri), batch_tokens=512)


def record(report: Opened) -> Report:
    assert isinstance(report.manifest, Report)
    return report.manifest


def test_scores_are_the_sums_of_the_rows(before: Opened) -> None:
    rows = rows_of(before.directory / "documents-00000.parquet").to_pylist()
    for found in record(before).scores:
        own = [row for row in rows if found.source in (row["source"], ALL)]
        assert found.count == len(own)
        assert found.value == pytest.approx(sum(r["bits"] for r in own) / sum(r["bytes"] for r in own))


def test_lineage_goes_down_to_the_raw_files(after: Opened) -> None:
    found = list(nodes(lineage(after.uri, verify=True)))
    assert {node.name for node in found if node.kind == "raw"} == {f"{s}/part.jsonl" for s in ("web", "code", "rare")}
    assert {"checkpoint", "mixture", "heldout", "report"} <= {node.kind for node in found}
    assert {node.state for node in found if node.kind in ("raw", "checkpoint", "mixture", "heldout", "report")} == {
        "ok"
    }


def test_the_same_request_is_the_same_report(
    before: Opened, store: LocalStore, untrained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evalkit.tasks.bits_per_byte.load_model", lambda uri: pytest.fail("scored again"))
    again = score(RECIPE, open_subject(untrained), store, compared=None, batch_tokens=64)
    assert again.uri == before.uri


def test_another_store_gets_an_equal_report(before: Opened, untrained: Path, tmp_path: Path) -> None:
    again = score(RECIPE, open_subject(untrained), open_store(tmp_path), compared=None, batch_tokens=512)
    assert again.manifest.id == before.manifest.id
    assert verify(again.uri) == sum(page.bytes for page in record(again).pages)


def test_another_limit_is_another_report(before: Opened, store: LocalStore, untrained: Path) -> None:
    limited = score(
        RECIPE.model_copy(update={"limit": 2}), open_subject(untrained), store, compared=None, batch_tokens=512
    )
    assert limited.uri != before.uri
    assert {s.source: s.count for s in record(limited).scores}["web"] == 2


def test_differences_are_of_the_two_reports_scores(before: Opened, after: Opened) -> None:
    pairs = zip(differences_of(record(after)), record(after).scores, record(before).scores, strict=True)
    for difference, ours, theirs in pairs:
        assert difference.source == ours.source
        assert difference.value == pytest.approx(ours.value - theirs.value)


def test_a_report_over_other_documents_is_refused_before_any_work(
    before: Opened, store: LocalStore, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evalkit.tasks.bits_per_byte.load_model", lambda uri: pytest.fail("scored"))
    limited = RECIPE.model_copy(update={"limit": 2})
    with pytest.raises(WrongArtifact, match="A difference is only fair over the same documents"):
        score(limited, open_subject(trained), store, compared=before, batch_tokens=512)


def test_a_tokenizer_that_the_model_does_not_know_is_refused(
    mixture: Opened, tmp_path: Path, checkpoint_of: Callable[..., Path]
) -> None:
    small = checkpoint_of(mixture, 5, vocab_size=128)
    with pytest.raises(WrongArtifact, match=r"knows 128 tokens, but the tokenizer .* has 300"):
        score(RECIPE, open_subject(small), open_store(tmp_path), compared=None, batch_tokens=512)


class _Balance(HTMLParser):
    """Which tags are open, and every URL that the page would load."""

    VOID = frozenset({"meta", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        self.loads += [value or "" for key, value in attributes if key in ("src", "srcset", "data", "xlink:href")]
        assert tag not in ("link", "script", "img", "iframe")

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize("which", ["before", "after"])
def test_the_page_is_well_formed_and_whole_in_itself(which: str, request: pytest.FixtureRequest) -> None:
    page = (request.getfixturevalue(which).directory / "report.html").read_text()
    parser = _Balance()
    parser.feed(page)
    assert parser.open == []
    assert parser.loads == []
    assert "url(" not in page
    assert "@import" not in page
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("name", ["report.html", "report.md"])
def test_pages_say_the_scores_and_the_differences(after: Opened, name: str) -> None:
    page = (after.directory / name).read_text()
    for found in record(after).scores:
        assert f"{found.value:.3f}" in page
    for found in differences_of(record(after)):
        assert f"{found.value:+.3f}".replace("-", "−") in page


def test_pages_do_not_say_where_they_were_made(after: Opened, store: LocalStore) -> None:
    for name in ("report.html", "report.md"):
        assert str(store.root) not in (after.directory / name).read_text()
