"""Streams of some documents of a source: halves, ranges and metadata, and what a mixture says of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dataproc.recipe import DataRecipe
from manifest.artifact import open_streams
from manifest.errors import DataError, RecipeError
from manifest.identity import hash64

Make = Callable[..., Any]
LANGUAGES = ("python", "css", "html")


@pytest.fixture
def raw(tmp_path: Path, write_jsonl: Make, words: Make) -> Path:
    records = [
        {"id": i, "text": " ".join(words(i, 20)), "lang": LANGUAGES[i % 3], "repo": {"stars": i}, "tags": [i % 2, "x"]}
        for i in range(120)
    ]
    write_jsonl(tmp_path / "raw" / "code" / "x.jsonl", records)
    return tmp_path / "raw"


@pytest.fixture
def of_code(recipe: Make) -> Callable[..., DataRecipe]:
    def make(views: dict[str, dict[str, Any]], **overrides: Any) -> DataRecipe:
        phases = {"only": {"epochs": dict.fromkeys(views, 1)}}
        sources = {"code": {"files": "code/*", "id": "id"}}
        views = {name: {"of": "code", **view} for name, view in views.items() if name != "code"}
        made: DataRecipe = recipe(**{"sources": sources, "views": views, "phases": phases, **overrides})
        return made

    return make


def documents(built: Any) -> dict[str, set[int]]:
    """The numbers of the documents in each stream."""
    return {
        name: {int(span.document.partition("/")[2]) for span in stream.spans(0, stream.tokens)}
        for name, stream in open_streams(built.published[0]).items()
    }


def test_the_halves_of_a_source_are_disjoint_and_the_whole(
    raw: Path, tmp_path: Path, of_code: Make, build: Make
) -> None:
    views = {"a": {"part": "even"}, "b": {"part": "odd"}, "code": {}}
    found = documents(build(of_code(views), raw, tmp_path / "store"))
    assert found["a"] == {i for i in range(120) if hash64(f"code/{i}") % 2 == 0}
    assert found["a"] & found["b"] == set()
    assert found["a"] | found["b"] == found["code"] == set(range(120))


def test_a_range_goes_by_the_hash_as_a_share(raw: Path, tmp_path: Path, of_code: Make, build: Make) -> None:
    views = {"first": {"part": [0, 0.25]}, "rest": {"part": [0.25, 1]}}
    found = documents(build(of_code(views), raw, tmp_path / "store"))
    assert found["first"] == {i for i in range(120) if hash64(f"code/{i}") < 2**62}
    assert found["rest"] == set(range(120)) - found["first"]


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ({"lang": "python"}, {i for i in range(120) if i % 3 == 0}),
        ({"lang": ["css", "html"]}, {i for i in range(120) if i % 3}),
        ({"repo.stars": [3, 5]}, {3, 5}),
        ({"lang": "css", "tags": 1}, {i for i in range(120) if i % 3 == 1 and i % 2 == 1}),
    ],
)
def test_documents_are_chosen_by_their_metadata(
    raw: Path, tmp_path: Path, of_code: Make, build: Make, where: dict[str, Any], expected: set[int]
) -> None:
    assert documents(build(of_code({"v": {"where": where}}), raw, tmp_path / "store")) == {"v": expected}


def test_views_that_differ_in_how_they_are_read_share_a_stream(raw: Path, of_code: Make) -> None:
    even = {"half": {"part": "even"}, "again": {"part": "even", "fim": 0.3}}
    made = of_code({"code": {}, "rearranged": {"fim": 0.9}, **even})
    assert list(made.streams()) == ["code", "half"]
    assert [made.stream_of(view) for view in made.drawn()] == ["code", "code", "half", "half"]


def test_a_mixture_says_what_its_views_read(raw: Path, tmp_path: Path, of_code: Make, build: Make) -> None:
    views = {"half": {"part": "even", "where": {"lang": ["css", "html"]}}}
    mixture = build(of_code(views), raw, tmp_path / "store").mixture
    assert mixture.views["half"].model_dump() == {
        "of": "code",
        "stream": "half",
        "where": {"lang": ("css", "html")},
        "part": "even",
        "template": None,
        "fim": None,
    }
    assert mixture.summary["sources"]["code"]["tokens"] == mixture.streams["half"].tokens


def test_a_view_that_takes_no_document_is_an_error_that_says_what_there_is(
    raw: Path, tmp_path: Path, of_code: Make, build: Make
) -> None:
    with pytest.raises(
        RecipeError, match=r"no document of source 'code' has lang in \['pyhton'\]; the first .*'python'"
    ):
        build(of_code({"v": {"where": {"lang": "pyhton"}}}), raw, tmp_path / "store")


def test_a_stream_that_is_read_more_often_than_allowed_stops_the_build(
    raw: Path, tmp_path: Path, of_code: Make, build: Make
) -> None:
    phases = {"one": {"epochs": {"a": 3}}, "two": {"epochs": {"a": 2}}}
    half = {"a": {"part": "even"}}
    with pytest.raises(DataError, match=r"gate max_epochs: the phases read stream 'a' 5 times; the recipe allows 4"):
        build(of_code(half, phases=phases, max_epochs={"a": 4}), raw, tmp_path / "store")
    assert not (tmp_path / "store" / "mixtures").exists()
    waived = {"scope": "none", "gates": {"override": {"max_epochs": "small on purpose"}}}
    mixture = build(of_code(half, phases=phases, max_epochs=4, dedup=waived), raw, tmp_path / "store").mixture
    assert mixture.summary["epochs"] == {"a": 5}
    assert mixture.summary["overridden"][0]["gate"] == "max_epochs"


@pytest.mark.parametrize(
    ("view", "said"),
    [
        ({"part": [0.5, 0.5]}, "the range .* is empty"),
        ({"part": [0.5, 1.5]}, "less than or equal to 1"),
        ({"where": {"lang": []}}, "name no value"),
        ({"of": "cod"}, "view 'v' is of 'cod'; the recipe has"),
        ({"fim": 1.5}, "less than or equal to 1"),
    ],
)
def test_a_view_that_cannot_be_is_refused(of_code: Make, view: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        of_code({"v": view})
