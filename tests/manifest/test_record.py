from __future__ import annotations

import json
from typing import Any

import pytest

from manifest.errors import CorruptArtifact, UnknownVersion
from manifest.identity import identity
from manifest.mixture import Mixture, Phase, Stream, Tokenizer, View
from manifest.record import Artifact, Producer, Reference, Shard, digest_of_shards, fingerprint, parse


def artifact(**changes: Any) -> Artifact:
    fields: dict[str, Any] = {
        "kind": "deduped",
        "name": "c4",
        "stage": "keep",
        "fingerprint": "f",
        "digest": "d",
        "shards": (Shard(path="0.parquet", bytes=10, sha256="s", rows=3, digest="r"),),
        "inputs": {"raw": Reference(kind="raw", name="a.jsonl", id="1", uri="../raw/a.jsonl")},
        "config": {"threshold": 0.8},
    }
    return Artifact(**(fields | changes))


def mixture(**changes: Any) -> Mixture:
    fields: dict[str, Any] = {
        "name": "m",
        "tokenizer": Tokenizer(uri="../tok", digest="t", vocab_size=10, end_of_text=0),
        "block_tokens": 8,
        "streams": {"a": Stream(uri="../a", id="1", tokens=20, documents=2, blocks=3, shards=())},
        "views": {"a": View(of="a", stream="a")},
        "phases": (Phase(name="p", draw={"a": 3}),),
    }
    return Mixture(**(fields | changes))


NOT_IDENTITY = [
    {"created": "2026-01-01"},
    {"producer": Producer(program="x", version="1", measured={"seconds": 2.5})},
    {"inputs": {"raw": Reference(kind="raw", name="a.jsonl", id="1", uri="/elsewhere/a.jsonl")}},
    {"shards": (Shard(path="0.parquet", bytes=11, sha256="other writer", rows=3, digest="r"),)},
]
IS_IDENTITY = [
    {"kind": "clusters"},
    {"name": "pile"},
    {"stage": "drop"},
    {"fingerprint": "g"},
    {"digest": "e"},
    {"shards": (Shard(path="0.parquet", bytes=10, sha256="s", rows=4, digest="r"),)},
    {"inputs": {"raw": Reference(kind="raw", name="a.jsonl", id="2", uri="../raw/a.jsonl")}},
    {"inputs": {}},
    {"config": {"threshold": 0.9}},
    {"summary": {"kept": 3}},
]


@pytest.mark.parametrize("changes", NOT_IDENTITY)
def test_place_time_maker_and_file_bytes_leave_the_id(changes: dict[str, Any]) -> None:
    assert artifact(**changes).content_id() == artifact().content_id()


@pytest.mark.parametrize("changes", IS_IDENTITY)
def test_everything_else_changes_the_id(changes: dict[str, Any]) -> None:
    assert artifact(**changes).content_id() != artifact().content_id()


def test_a_manifest_survives_its_journey_through_json() -> None:
    for record in (artifact().identified(), mixture().identified()):
        assert parse(record.to_json(), "here") == record


@pytest.mark.parametrize("value", [{1, 2}, b"x", {1: "a"}, float("nan"), object()])
def test_a_config_without_a_stable_form_is_refused(value: object) -> None:
    with pytest.raises((TypeError, ValueError)):
        artifact(config={"value": value}).identified()


def test_an_unknown_version_is_named_beside_the_known_one() -> None:
    fields = json.loads(artifact().identified().to_json()) | {"version": 7}
    with pytest.raises(UnknownVersion, match=r"version 7; this Winnow reads version 1"):
        parse(json.dumps(fields).encode(), "here")


def test_a_manifest_that_was_changed_is_refused() -> None:
    data = artifact().identified().to_json().replace(b'"threshold": 0.8', b'"threshold": 0.7')
    with pytest.raises(CorruptArtifact, match="changed after publishing"):
        parse(data, "here")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ('{"version": 1, "kind": "mixture", "name": "m"}', "field tokenizer"),
        ('{"version": 1, "kind": ["mixture"], "name": "m"}', "field kind"),
        ('{"version": 1, "kind": "report", "name": "r", "scores": [], "colour": 1}', "field colour"),
    ],
)
def test_a_manifest_that_cannot_be_read_says_where(text: str, message: str) -> None:
    with pytest.raises(CorruptArtifact, match=f"here.*{message}"):
        parse(text.encode(), "here")


def test_a_list_is_no_manifest() -> None:
    with pytest.raises(UnknownVersion):
        parse(b"[]", "here")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"views": {"a": View(of="a", stream="b")}}, "view 'a' reads stream 'b'"),
        ({"phases": (Phase(name="p", draw={"b": 1}),)}, "phase 'p' draws from view 'b'"),
        ({"phases": (Phase(name="p", draw={"a": -1}),)}, "draws -1 blocks"),
        ({"phases": (Phase(name="p", draw={}), Phase(name="p", draw={}))}, "share a name"),
    ],
)
def test_a_mixture_that_does_not_add_up_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mixture(**changes)


def test_the_fingerprint_follows_everything_that_was_asked() -> None:
    inputs = {"raw": Reference(kind="raw", name="a", id="1", uri="x")}
    moved = {"raw": Reference(kind="raw", name="a", id="1", uri="y")}
    asked = {"config": {"n": 1}, "inputs": inputs, "libraries": {"ftfy": "6"}}
    base = fingerprint("keep", **asked)
    assert fingerprint("keep", **(asked | {"inputs": moved})) == base
    others = [
        fingerprint("drop", **asked),
        fingerprint("keep", **(asked | {"config": {"n": 2}})),
        fingerprint("keep", **(asked | {"inputs": {}})),
        fingerprint("keep", **(asked | {"libraries": {"ftfy": "7"}})),
    ]
    assert len({base, *others}) == 5


def test_the_order_in_which_shards_were_finished_is_not_in_the_digest() -> None:
    shards = tuple(Shard(path=f"{i}", bytes=1, sha256="s", rows=i, digest=str(i)) for i in range(3))
    assert digest_of_shards(shards) == digest_of_shards(shards[::-1])
    assert digest_of_shards(shards) != digest_of_shards(shards[:2])


def test_the_id_of_a_record_is_the_identity_of_its_json() -> None:
    record = mixture().identified()
    assert record.id == identity(json.loads(record.to_json()))
