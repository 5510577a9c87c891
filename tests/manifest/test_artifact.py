from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from manifest.artifact import open_artifact, open_streams, read_manifest, relative_uri, resolve, verify
from manifest.errors import CorruptArtifact, InputError, NotAnArtifact, WrongArtifact
from manifest.lineage import lineage, nodes

if TYPE_CHECKING:
    from tests.manifest.conftest import Builder, Built

DOCUMENTS = {f"c4/{index}": [index + 1] * (index + 3) for index in range(6)}


def small_mixture(build: Builder, **options: int) -> Built:
    tokens = build.tokens("c4", DOCUMENTS, inputs={"raw": build.raw("a.jsonl", "text")}, **options)
    return build.mixture("demo", {"c4": tokens}, {"p": {"c4": 4}})


@pytest.mark.parametrize("form", ["{}", "{}/", "{}/manifest.json", "file://{}"])
def test_an_artifact_opens_by_any_name_of_its_directory(build: Builder, form: str) -> None:
    built = build.artifact("deduped/c4")
    opened = open_artifact(form.format(built.uri))
    assert (opened.uri, opened.manifest) == (built.uri, built.manifest)


def test_an_artifact_opens_by_a_path_relative_to_where_one_stands(
    build: Builder, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = build.artifact("deduped/c4")
    monkeypatch.chdir(built.uri)
    assert open_artifact(".").uri == open_artifact("manifest.json").uri == built.uri


def test_a_directory_without_a_manifest_is_no_artifact(tmp_path: Path) -> None:
    with pytest.raises(NotAnArtifact, match=r"has no manifest\.json"):
        open_artifact(tmp_path)


def test_another_kind_is_refused_by_name(build: Builder) -> None:
    built = build.artifact("deduped/c4")
    with pytest.raises(WrongArtifact, match=r"is a deduped .* expected a mixture"):
        open_artifact(built.uri, "mixture")


@pytest.mark.parametrize(("change", "message"), [(b"rows", "has 4 bytes"), (None, "is missing")])
def test_a_file_of_another_size_is_refused_on_opening(build: Builder, change: bytes | None, message: str) -> None:
    built = build.artifact("deduped/c4")
    file = Path(built.uri) / "part.bin"
    file.unlink() if change is None else file.write_bytes(change)
    with pytest.raises(CorruptArtifact, match=f"{message}; the manifest says 18 bytes"):
        open_artifact(built.uri)
    with pytest.raises(CorruptArtifact):
        verify(built.uri)


def test_a_flipped_bit_is_found_by_verify_alone(build: Builder) -> None:
    built = small_mixture(build)
    files = sorted(Path(build.store.where("tokens/c4")).glob("*.bin"))
    whole = verify(built.uri)
    files[0].write_bytes(bytes([files[0].read_bytes()[0] ^ 1]) + files[0].read_bytes()[1:])
    assert open_artifact(built.uri)
    assert whole == sum(file.stat().st_size for file in files[0].parent.iterdir() if file.name != "manifest.json")
    with pytest.raises(CorruptArtifact, match="SHA-256"):
        verify(built.uri)


def test_a_mixtures_streams_read_all_tokens_of_all_shards(build: Builder) -> None:
    built = small_mixture(build, shards=3)
    stream = open_streams(open_artifact(built.uri))["c4"]
    assert sorted(stream.read(0, stream.tokens).tolist()) == sorted(
        token for tokens in DOCUMENTS.values() for token in tokens
    )


def test_streams_that_are_not_the_mixtures_own_are_refused(build: Builder) -> None:
    built = small_mixture(build)
    tokens = Path(build.store.where("tokens/c4"))
    tokens.rename(tokens.with_name("away"))
    build.tokens("c4", DOCUMENTS | {"c4/new": [1]})
    with pytest.raises(WrongArtifact, match="the mixture was made with"):
        open_streams(open_artifact(built.uri))
    with pytest.raises(WrongArtifact, match="the mixture was made with"):
        verify(built.uri)


def test_moving_a_store_keeps_its_ids_and_its_lineage(build: Builder, tmp_path: Path) -> None:
    built = small_mixture(build)
    before = [(node.kind, node.id) for node in nodes(lineage(built.uri))]
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "store").rename(tmp_path / "elsewhere" / "store")
    (tmp_path / "raw").rename(tmp_path / "elsewhere" / "raw")
    moved = tmp_path / "elsewhere" / "store" / "mixtures" / "demo"
    (tmp_path / "tokenizer").mkdir()
    assert [(node.kind, node.id) for node in nodes(lineage(moved))] == before
    assert {node.state for node in nodes(lineage(moved)) if node.kind != "tokenizer"} == {"ok"}
    assert verify(moved) > 0


@pytest.mark.parametrize(
    ("target", "base", "relative"),
    [
        ("/store/tokens/a", "/store/mixtures/m", "../../tokens/a"),
        ("s3://b/store/tokens/a", "s3://b/store/mixtures/m", "../../tokens/a"),
        ("s3://other/tokens/a", "s3://b/mixtures/m", "s3://other/tokens/a"),
        ("s3://b/tokens/a", "/store/mixtures/m", "s3://b/tokens/a"),
        ("/raw/a.jsonl", "s3://b/mixtures/m", "/raw/a.jsonl"),
    ],
)
def test_resolve_undoes_relative_uri(target: str, base: str, relative: str) -> None:
    assert relative_uri(target, base) == relative
    assert resolve(base, relative) == target


def test_a_local_file_named_from_a_bucket_is_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert relative_uri("raw/a", "s3://b/documents/c4") == str(tmp_path / "raw/a")


def test_a_bucket_is_not_an_artifact() -> None:
    with pytest.raises(InputError, match="s3://bucket is a whole store"):
        read_manifest("s3://bucket")
