"""A card says what is in the mixture and what it was made from, and other programs can read it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import entropy

from dataproc.card.pages import COLOURS, keys_of
from dataproc.card.record import Card
from dataproc.card.similarity import PRIOR, divergences
from dataproc.card.stage import card_of
from dataproc.stage import Build
from dataproc.workers import Serial
from manifest.artifact import Opened, open_streams
from manifest.errors import NotAnArtifact

Make = Callable[..., Any]


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory, write_jsonl: Make, words: Make) -> Path:
    root = tmp_path_factory.mktemp("card") / "raw"
    texts = [" ".join(words(i, 40)) for i in range(40)]
    a = [{"id": i, "text": text, "license": "MIT" if i % 4 else "CC0 | <b>1.0</b>"} for i, text in enumerate(texts)]
    write_jsonl(root / "a" / "x.jsonl", a)
    b = [{"text": text} for text in texts[:6]] + [{"text": " ".join(words(1000 + i, 40))} for i in range(10)]
    (root / "b").mkdir()
    (root / "b" / "x.jsonl").write_text("".join(json.dumps(r) + "\n" for r in b) + "{broken\n")
    return root


@pytest.fixture(scope="module")
def built(raw: Path, tmp_path_factory: pytest.TempPathFactory, recipe: Make, build: Make) -> Any:
    sources = {"a": {"files": "a/*", "id": "id"}, "b": {"files": "b/*", "max_unreadable": 1}}
    views = {"half": {"of": "a", "part": "even"}}
    phases = {"one": {"epochs": {"half": 2, "b": 1}}, "two": {"weights": {"a": 0.5, "half": 0.5}, "tokens": 640}}
    asked = recipe(sources=sources, views=views, phases=phases, dedup={"scope": "global"})
    return build(asked, raw, tmp_path_factory.mktemp("card") / "store")


@pytest.fixture(scope="module")
def card(built: Any) -> Opened:
    made = card_of(built.published[0], Build(built.store, Serial()))
    assert isinstance(made, Opened)
    return made


def test_a_source_that_no_phase_draws_from_is_not_on_the_card(
    built: Any, raw: Path, tmp_path: Path, recipe: Make, build: Make
) -> None:
    sources = {"a": {"files": "a/*", "id": "id"}, "b": {"files": "b/*", "max_unreadable": 1}}
    given = {"path": str(built.artifact("tokenizers", "bpe").directory)}  # else it is trained on both
    asked = recipe(sources=sources, phases={"one": {"epochs": {"a": 1}}}, dedup={"scope": "global"}, tokenizer=given)
    one = build(asked, raw, tmp_path)
    card = card_of(one.published[0], Build(one.store, Serial()))
    assert isinstance(card, Opened)
    found = Card.model_validate_json((card.directory / "card.json").read_text())
    assert [source.name for source in found.sources] == ["a"]
    assert found.documents == found.sources[0].retention.kept


def test_the_record_agrees_with_the_mixture(built: Any, card: Opened) -> None:
    found = Card.model_validate_json((card.directory / "card.json").read_text())
    mixture = built.mixture
    assert (found.id, found.tokens) == (mixture.id, mixture.tokens)
    a, b = (source.retention for source in found.sources)
    assert (b.records, b.unreadable, b.duplicates_across, b.kept) == (17, 1, 6, 10)
    assert b.duplicate_share == 6 / 16
    assert a.kept + b.kept == found.documents == 50
    assert a.bytes_in == a.bytes_kept == sum(len(row["text"]) for row in built.rows("deduped", "a"))
    assert found.sources[0].licences == {"MIT": 30, "CC0 | <b>1.0</b>": 10}
    assert found.sources[1].licences == {"": 10}
    assert {s.name: (s.source, s.choice, s.epochs) for s in found.streams}["half"][:2] == ("a", "even")
    assert [sum(draw.tokens for draw in phase.draws) for phase in found.phases] == [p.tokens for p in found.phases]
    assert found.overlap is not None
    assert found.overlap.shared["b"]["a"].documents == 6


def test_views_are_coloured_by_their_sources_where_there_are_more_than_colours(card: Opened) -> None:
    found = Card.model_validate_json((card.directory / "card.json").read_text())
    assert keys_of(found) == {"half": "half", "b": "b", "a": "a"}
    draw = found.phases[0].draws[0]
    many = tuple(draw.model_copy(update={"view": f"v{n}", "stream": "half"}) for n in range(len(COLOURS) + 1))
    wide = found.model_copy(update={"phases": (found.phases[0].model_copy(update={"draws": many}),)})
    assert set(keys_of(wide).values()) == {"a"}


def test_what_was_removed_stands_beside_its_survivor_and_its_reason(built: Any, card: Opened) -> None:
    found = Card.model_validate_json((card.directory / "card.json").read_text()).removed
    duplicates = [item for item in found if item.survivor]
    assert len(duplicates) == 6
    rows = [row for name in ("a", "b") for row in built.rows("documents", name, "documents")]
    texts = {row["id"]: row["text"] for row in rows}
    for item in duplicates:
        assert item.id.startswith("b/")
        assert texts[item.id].startswith(item.excerpt.removesuffix(" …"))
        assert texts[item.survivor].startswith(item.survivor_excerpt.removesuffix(" …"))
    (broken,) = [item for item in found if not item.survivor]
    assert broken.why.startswith("could not be read: ")
    assert broken.excerpt == "{broken"


def test_a_card_is_the_same_each_time_and_is_traced_to_its_mixture(built: Any, card: Opened, tmp_path: Path) -> None:
    again = card_of(built.published[0], Build(type(built.store)(tmp_path), Serial()))
    assert isinstance(again, Opened)
    assert again.manifest.digest == card.manifest.digest  # type: ignore[attr-defined]
    assert [reference.id for reference in card.manifest.inputs.values()] == [built.id]


class _Shape(HTMLParser):
    """Cells per row of each table, and the tags that are open."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tables: list[list[int]] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag not in ("meta", "br"):
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append(0)
        if tag in ("td", "th"):
            self.tables[-1][-1] += 1

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_whole_and_text_cannot_leave_its_place(card: Opened) -> None:
    text = (card.directory / "index.html").read_text()
    shape = _Shape()
    shape.feed(text)
    assert shape.open == []
    assert len(shape.tables) == 6
    assert all(len(set(rows)) == 1 for rows in shape.tables)
    assert "<b>1.0" not in text
    assert "http" not in text


def test_every_row_of_a_markdown_table_has_the_cells_of_its_head(card: Opened) -> None:
    lines = (card.directory / "README.md").read_text().replace("\\|", "").splitlines()
    tables = [i for i, line in enumerate(lines) if line.startswith("|---")]
    assert len(tables) == 6
    for rule in tables:
        width, row = lines[rule].count("|"), rule - 1
        while row < len(lines) and lines[row].startswith("|"):
            assert lines[row].count("|") == width, lines[row]
            row += 1
        assert row > rule + 1


def test_croissant_is_valid_and_leads_to_the_documents(built: Any, card: Opened) -> None:
    croissant = pytest.importorskip("mlcroissant")
    at = shutil.copy(card.directory / "croissant.json", built.store.root)
    dataset = croissant.Dataset(jsonld=at)
    assert dataset.metadata.ctx.issues.errors == set()
    assert set(dataset.metadata.license) == {"MIT", "CC0 | <b>1.0</b>"}
    for name in ("a", "b"):
        rows = [
            {key.partition("/")[2]: value.decode() for key, value in record.items()} for record in dataset.records(name)
        ]
        assert rows == built.rows("deduped", name)


def test_divergences_are_those_of_smoothed_frequencies(built: Any) -> None:
    streams = open_streams(built.published[0])
    size = built.mixture.tokenizer.vocab_size
    found = divergences(streams, size)
    counts = {name: np.bincount(s.read(0, s.tokens), minlength=size) + PRIOR for name, s in streams.items()}
    for a, p in counts.items():
        for b, q in counts.items():
            assert found[a][b] == pytest.approx(entropy(p, q, base=2), abs=1e-4)
    assert found["half"]["a"] < found["half"]["b"]


def test_a_mixture_whose_documents_are_gone_has_no_card(raw: Path, tmp_path: Path, recipe: Make, build: Make) -> None:
    built = build(recipe(sources={"a": {"files": "a/*"}}), raw, tmp_path)
    gone = built.artifact("deduped", "a").directory
    gone.rename(gone.with_name("elsewhere"))
    with pytest.raises(NotAnArtifact, match="deduped"):
        card_of(built.published[0], Build(type(built.store)(tmp_path / "other"), Serial()))
    assert not (tmp_path / "other" / "cards").exists()
