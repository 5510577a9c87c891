from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manifest.identity import canonical_json, content_id, digest_of, hash64, identity

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abcxyz", max_size=3), inner, max_size=4),
    max_leaves=12,
)


@given(JSON)
def test_canonical_json_says_the_same_as_the_value(value: object) -> None:
    assert json.loads(canonical_json(value)) == value


@given(st.dictionaries(st.text("abcxyz", max_size=3), JSON, max_size=4))
def test_the_order_of_keys_does_not_matter(value: dict[str, object]) -> None:
    assert canonical_json(dict(reversed(value.items()))) == canonical_json(value)


def test_canonical_json_is_sorted_tight_and_utf8() -> None:
    assert canonical_json({"b": [1, 2.5], "a": "ü"}) == '{"a":"ü","b":[1,2.5]}'.encode()


@pytest.mark.parametrize(
    "value", [{1, 2}, b"bytes", bytearray(b"x"), {1: "a"}, Path("x"), object(), {"deep": [{"er": {3}}]}, 1j]
)
def test_what_has_no_stable_form_is_refused(value: object) -> None:
    with pytest.raises(TypeError):
        canonical_json(value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), [-float("inf")], "\ud800"])
def test_what_has_no_json_form_is_refused(value: object) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - NaN and surrogates say it in different words
        canonical_json(value)


@pytest.mark.parametrize("value", [{"x": bytearray(b"ab")}, {"x": b"ab"}, {"x": {1}}])
def test_identity_refuses_what_canonical_json_refuses(value: dict[str, object]) -> None:
    with pytest.raises(TypeError):
        identity(value)


@given(st.dictionaries(st.text("abc", min_size=1, max_size=3), JSON, min_size=1, max_size=3), st.text(), st.text())
@settings(max_examples=50)
def test_where_when_and_by_whom_is_not_identity(fields: dict[str, object], uri: str, created: str) -> None:
    noted = {**fields, "uri": "s3://x", "created": created, "producer": {"program": "p"}, "id": "1"}
    nested = {"inner": {**fields, "uri": "elsewhere"}}
    assert identity(noted) == identity(fields)
    assert identity(nested) == identity({"inner": fields})


def test_created_is_left_out_at_the_top_only() -> None:
    assert identity({"config": {"created": 1}}) != identity({"config": {"created": 2}})


def test_digest_is_sha256_of_the_canonical_text() -> None:
    assert digest_of({"a": 1}) == hashlib.sha256(b'{"a":1}').hexdigest()


def test_a_documents_hash_and_content_id_are_blake2b_as_published() -> None:
    # Stored in every shard and every id: these values may never change.
    assert hash64("c4/1") == int(hashlib.blake2b(b"c4/1", digest_size=8).hexdigest(), 16)
    assert content_id("c4", "text") == "c4/" + hashlib.blake2b(b"text", digest_size=16).hexdigest()
