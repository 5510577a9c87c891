"""S3, against moto's server on loopback: it keeps the protocol's promises, of which conditional creation matters."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import obstore
import pytest
from moto.server import ThreadedMotoServer

from manifest.artifact import open_artifact, open_streams, verify
from manifest.errors import CorruptArtifact, InputError
from manifest.lineage import lineage, nodes
from manifest.objectstore import S3Store
from manifest.store import open_store

if TYPE_CHECKING:
    from tests.manifest.conftest import Builder

FILES = {"a.bin": b"first", "b.bin": b"second", "empty.bin": b""}
DOCUMENTS = {f"c4/{index}": [index + 1] * 3 for index in range(5)}


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(endpoint: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """An empty bucket `winnow`, with the environment that leads to it."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("WINNOW_CACHE", str(tmp_path / "cache"))
    client = boto3.resource("s3", endpoint_url=endpoint, region_name="us-east-1")
    found = client.create_bucket(Bucket="winnow")
    yield found
    found.objects.all().delete()
    found.delete()


@pytest.fixture
def remote(bucket: Any, builder: Callable[..., Builder], tmp_path: Path) -> Builder:
    return builder(open_store("s3://winnow/store"), tmp_path)


def on_another_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str = "other") -> S3Store:
    """The same store, with a cache of its own."""
    monkeypatch.setenv("WINNOW_CACHE", str(tmp_path / name))
    return S3Store("s3://winnow/store")


def test_what_is_published_opens_elsewhere_with_the_same_bytes(
    remote: Builder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    built = remote.artifact("deduped/c4", FILES)
    on_another_machine(monkeypatch, tmp_path)
    opened = open_artifact(built.uri)
    assert (opened.uri, opened.manifest) == ("s3://winnow/store/deduped/c4", built.manifest)
    assert {name: (opened.directory / name).read_bytes() for name in FILES} == FILES
    assert opened.directory.is_relative_to(tmp_path / "other")
    assert verify(built.uri) == 11


def test_files_are_downloaded_once_and_by_the_publisher_never(
    remote: Builder, bucket: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    built = remote.artifact("deduped/c4", FILES)
    elsewhere = on_another_machine(monkeypatch, tmp_path)
    elsewhere.local("deduped/c4")
    bucket.Object("store/deduped/c4/a.bin").delete()
    assert (elsewhere.local("deduped/c4") / "a.bin").read_bytes() == b"first"
    assert (remote.store.local("deduped/c4") / "a.bin").read_bytes() == b"first"
    with pytest.raises(CorruptArtifact, match=r"a\.bin is missing"):
        verify(built.uri)


def test_an_artifact_that_was_rebuilt_is_not_read_from_the_cache(remote: Builder, bucket: Any) -> None:
    remote.artifact("deduped/c4", FILES)
    bucket.objects.filter(Prefix="store/deduped/").delete()
    remote.artifact("deduped/c4", {"a.bin": b"newer"})
    assert (remote.store.local("deduped/c4") / "a.bin").read_bytes() == b"newer"


@pytest.mark.parametrize("damaged", [b"First", b"shorter"])
def test_a_damaged_object_is_refused_on_download(
    remote: Builder, bucket: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, damaged: bytes
) -> None:
    built = remote.artifact("deduped/c4", FILES)
    bucket.Object("store/deduped/c4/a.bin").put(Body=damaged)
    on_another_machine(monkeypatch, tmp_path)
    for _ in range(2):  # and nothing of it stays behind
        with pytest.raises(CorruptArtifact, match=r"a\.bin has \d bytes with SHA-256 .* the manifest says 5 bytes"):
            open_artifact(built.uri)


def test_only_published_directories_are_listed_and_all_of_them(remote: Builder, bucket: Any) -> None:
    for name in ("b", "a"):
        remote.artifact(f"deduped/{name}", FILES)
    bucket.Object("store/deduped/unfinished/a.bin").put(Body=b"half")
    assert remote.store.list("deduped") == ["a", "b"]
    assert list(remote.store.folders("deduped")) == ["a", "b", "unfinished"]
    assert remote.store.list("nowhere") == []
    assert list(remote.store.folders("")) == ["deduped"]


def test_streams_and_lineage_resolve_from_artifact_to_artifact(remote: Builder, bucket: Any) -> None:
    bucket.Object("raw/a.jsonl").put(Body=b"raw")
    raw = remote.raw("a.jsonl", "local")
    tokens = remote.tokens("c4", DOCUMENTS, inputs={"raw": raw})
    mixture = remote.mixture("m", {"c4": tokens}, {"p": {"c4": 1}})
    stream = open_streams(open_artifact(mixture.uri))["c4"]
    assert stream.tokens == 15
    found = {node.kind: (node.uri, node.state) for node in nodes(lineage(mixture.uri, verify=True))}
    assert found == {
        "mixture": ("s3://winnow/store/mixtures/m", "ok"),
        "tokens": ("s3://winnow/store/tokens/c4", "ok"),
        "raw": (str(raw), "ok"),
        "tokenizer": ("s3://winnow/store/tokenizer", "missing"),
    }


def test_a_raw_file_in_a_bucket_exists_and_can_be_hashed(remote: Builder, bucket: Any) -> None:
    bucket.Object("store/raw/a.jsonl").put(Body=b"first")
    assert remote.store.exists("raw/a.jsonl")
    assert remote.store.exists("raw")
    assert not remote.store.exists("raw/b.jsonl")
    assert remote.store.sha256("raw/a.jsonl").startswith("a7937b64b8ca")  # of `printf first`


def racing(monkeypatch: pytest.MonkeyPatch, at_put: int, other: Callable[[], object]) -> list[str]:
    """Lets another writer publish right before the `at_put`-th upload; returns the keys that are uploaded."""
    put, keys = obstore.put, []

    def put_after_the_other(store: object, key: str, *rest: object, **options: object) -> object:
        keys.append(key)
        if len(keys) == at_put:
            other()
        return put(store, key, *rest, **options)  # type: ignore[arg-type, call-overload]

    monkeypatch.setattr(obstore, "put", put_after_the_other)
    return keys


@pytest.mark.parametrize("at_put", [1, 2, 3, 4])
def test_two_writers_of_the_same_content_both_succeed(
    remote: Builder, builder: Callable[..., Builder], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, at_put: int
) -> None:
    other = builder(on_another_machine(monkeypatch, tmp_path), tmp_path)
    results = []
    racing(monkeypatch, at_put, lambda: results.append(other.artifact("deduped/c4", FILES)))
    mine = remote.artifact("deduped/c4", FILES)
    assert [result.manifest.id for result in results] == [mine.manifest.id]
    assert verify(mine.uri) == 11
    assert open_artifact(mine.uri).manifest.id == mine.manifest.id


@pytest.mark.parametrize("at_put", [1, 2, 3, 4])
def test_of_two_writers_of_different_content_the_slower_fails_and_harms_nothing(
    remote: Builder, builder: Callable[..., Builder], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, at_put: int
) -> None:
    other = builder(on_another_machine(monkeypatch, tmp_path), tmp_path)
    theirs = {"a.bin": b"FIRST", "b.bin": b"SECOND", "empty.bin": b"FILLED"}
    results = []
    racing(monkeypatch, at_put, lambda: results.append(other.artifact("deduped/c4", theirs)))
    with pytest.raises(CorruptArtifact, match="exists with content"):
        remote.artifact("deduped/c4", FILES)
    assert verify(results[0].uri) == sum(map(len, theirs.values()))
    assert remote.store.manifest("deduped/c4") == results[0].manifest


def test_the_winner_puts_back_what_a_slower_writer_overwrote_before_it_saw_the_manifest(
    remote: Builder, bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    racing(monkeypatch, 4, lambda: bucket.Object("store/deduped/c4/a.bin").put(Body=b"stray"))
    built = remote.artifact("deduped/c4", FILES)  # the fourth upload is the manifest
    assert verify(built.uri) == 11


def test_a_file_that_is_there_already_is_not_uploaded_again(
    remote: Builder, bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.Object("store/deduped/c4/a.bin").put(Body=b"first")
    keys = racing(monkeypatch, 0, lambda: None)
    remote.artifact("deduped/c4", FILES)
    assert keys == [f"deduped/c4/{name}" for name in ("b.bin", "empty.bin", "manifest.json")]


def test_leftovers_of_another_content_are_replaced(remote: Builder, bucket: Any) -> None:
    bucket.Object("store/deduped/c4/a.bin").put(Body=b"left by a writer that died")
    assert verify(remote.artifact("deduped/c4", FILES).uri) == 11


def test_a_large_file_goes_up_in_parts(remote: Builder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("manifest.objectstore.SINGLE_REQUEST_BYTES", 1)
    built = remote.artifact("deduped/c4", {"a.bin": bytes(range(256)) * 24_000})
    assert verify(built.uri) == 6_144_000


@pytest.mark.parametrize("at_put", [1, 2, 3, 4])
def test_a_publish_killed_before_its_manifest_shows_nothing_and_can_be_repeated(
    remote: Builder, monkeypatch: pytest.MonkeyPatch, at_put: int
) -> None:
    def die() -> None:
        raise KeyboardInterrupt

    racing(monkeypatch, at_put, die)
    with pytest.raises(KeyboardInterrupt):
        remote.artifact("deduped/c4", FILES)
    assert remote.store.manifest("deduped/c4") is None
    assert remote.store.list("deduped") == []
    assert verify(remote.artifact("deduped/c4", FILES).uri) == 11


def test_a_missing_bucket_is_named(bucket: Any, builder: Callable[..., Builder], tmp_path: Path) -> None:
    for ask in (
        lambda: open_artifact("s3://nowhere/deduped/c4"),
        lambda: open_store("s3://nowhere/x").list("deduped"),
        lambda: builder(open_store("s3://nowhere/x"), tmp_path).artifact("deduped/c4", FILES),
    ):
        with pytest.raises(InputError, match="no such bucket"):
            ask()


@pytest.mark.parametrize(
    "missing", [["AWS_ACCESS_KEY_ID"], ["AWS_SECRET_ACCESS_KEY"], ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]]
)
def test_missing_credentials_are_said_at_once(bucket: Any, monkeypatch: pytest.MonkeyPatch, missing: list[str]) -> None:
    for variable in missing:
        monkeypatch.delenv(variable)
    with pytest.raises(InputError, match="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"):
        open_store("s3://winnow/store")


def test_an_endpoint_that_nobody_serves_is_named(bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(InputError, match=r"http://127\.0\.0\.1:9 cannot be reached"):
        open_artifact("s3://winnow/deduped/c4")


def test_a_uri_without_a_bucket_is_refused() -> None:
    with pytest.raises(InputError, match="names no bucket"):
        open_store("s3:///deduped")
