"""Where raw files may lie: no way leads out of the roots."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.roots import NotUnderRoots, resolve
from manifest.errors import InputError

STEPS = st.sampled_from(["..", ".", "", "in", "out", "link", "books", "~", "%2e%2e", "..\\", "...", "\u2024\u2024"])


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """in/ is the root; in/books is there; in/link leads out of it, in/here within."""
    base = tmp_path_factory.mktemp("roots")
    for name in ("in/books", "out/secret", "inside"):
        (base / name).mkdir(parents=True)
    (base / "in" / "link").symlink_to(base / "out")
    (base / "in" / "here").symlink_to(base / "in" / "books")
    return base


def test_what_is_under_a_root_is_found_by_path_and_by_name(place: Path) -> None:
    root = str(place / "in")
    books = str(place / "in" / "books")
    assert resolve(books, [root]) == books
    assert resolve("books", [root]) == books
    assert resolve("here", [root]) == books
    assert resolve(root + "/", [root]) == root
    assert resolve(".", [root]) == root
    assert resolve("books", [str(place / "inside"), root]) == books


@pytest.mark.parametrize(
    "asked",
    ["/etc", "..", "../out", "books/../../out", "link", "link/secret", "/", "../inside", "/in", "in\x00", " ", ""],
)
def test_what_is_not_is_refused(place: Path, asked: str) -> None:
    with pytest.raises(InputError):
        resolve(asked, [str(place / "in")])


def test_a_sibling_whose_name_begins_like_the_root_is_not_under_it(place: Path) -> None:
    with pytest.raises(NotUnderRoots, match="is not under a configured root"):
        resolve(str(place / "inside"), [str(place / "in")])


@given(steps=st.lists(STEPS | st.text(max_size=4), max_size=8), absolute=st.booleans())
@example(steps=["link"], absolute=True)
@example(steps=["..", "out"], absolute=True)
def test_no_path_leads_out(place: Path, steps: list[str], absolute: bool) -> None:
    root = place / "in"
    asked = "/".join([*([str(root)] if absolute else []), *steps])
    try:
        found = resolve(asked, [str(root)])
    except InputError:
        return
    assert Path(os.path.realpath(found)).is_relative_to(root)


@pytest.mark.parametrize("asked", ["s3://bucket/raw", "s3://bucket/raw/", "s3://bucket/raw/books"])
def test_a_uri_under_a_root(asked: str) -> None:
    assert resolve(asked, ["/data", "s3://bucket/raw"]) == asked.rstrip("/")


@pytest.mark.parametrize(
    "asked",
    [
        "s3://bucket/rawest",
        "s3://bucket/raw/../other",
        "s3://other/raw",
        "s3://bucket/raw?endpoint_override=evil:80",
        "s3://bucket/raw#x",
        "s3://key:secret@bucket/raw",
        "s3://bucket/raw/%2e%2e/other",
        "file:///etc",
        "gs://bucket/raw",
        "S3://bucket/raw",
        "http://169.254.169.254/latest",
    ],
)
def test_a_uri_elsewhere_or_with_more_to_it_is_refused(asked: str) -> None:
    with pytest.raises(NotUnderRoots):
        resolve(asked, ["/data", "s3://bucket/raw"])


def test_a_name_is_looked_up_under_a_uri_where_there_are_no_directories() -> None:
    assert resolve("books", ["s3://bucket/raw"]) == "s3://bucket/raw/books"
    with pytest.raises(NotUnderRoots):
        resolve("../other", ["s3://bucket/raw"])
