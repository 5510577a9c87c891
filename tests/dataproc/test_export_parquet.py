"""An export to Parquet holds the documents behind a mixture, and `datasets` loads it as its card says."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from dataproc import licences
from dataproc.documents import DOCUMENTS, ShardWriter
from dataproc.export import parquet
from dataproc.export.card import size_category
from dataproc.export.members import members
from dataproc.export.parts import Part, schema_of, write_part
from dataproc.recipe import DataRecipe, read
from dataproc.workers import Serial, Workers
from manifest.artifact import open_artifact, verify
from manifest.errors import CorruptArtifact, NotAnArtifact
from manifest.identity import hash64
from manifest.indexed import ShardWriter as TokenWriter

os.environ.setdefault("HF_HUB_OFFLINE", "1")
Row = dict[str, Any]


def key(identifier: str) -> bytes:
    return hashlib.blake2b(identifier.encode(), digest_size=8).digest()


STREAMS: dict[str, Callable[[Row], bool]] = {
    "web": lambda row: row["source"] == "web",
    "code_even": lambda row: row["source"] == "code" and key(row["id"])[-1] % 2 == 0,
    "code_mit": lambda row: row["source"] == "code" and json.loads(row["meta"]).get("license") == "MIT",
}
"""Which documents a stream takes, by its definition."""


def by_id(rows: Iterable[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: str(row["id"]))


def rows_at(out: Path, pattern: str) -> list[Row]:
    return [row for path in sorted(out.glob(pattern)) for row in pq.read_table(path).to_pylist()]


def header(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((out / "README.md").read_text().split("---\n")[1])
    return found


def export(uri: object, out: Path, workers: Workers | None = None) -> Path:
    return Path(parquet.export(parquet.ask(str(uri)), out, workers=workers or Serial()).uri)


@pytest.fixture(scope="module")
def kept(sliced: Any) -> list[Row]:
    """What dedup and hold-out left of all sources."""
    return [row for source in ("code", "web") for row in sliced.rows("deduped", source)]


@pytest.fixture(scope="module")
def held(sliced: Any) -> list[Row]:
    found: list[Row] = sliced.rows("heldout", "all", "heldout")
    return found


@pytest.fixture(scope="module")
def out(sliced: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(sliced.published[0].uri, tmp_path_factory.mktemp("parquet") / "out")


@pytest.mark.parametrize("stream", STREAMS)
def test_a_stream_has_the_documents_that_its_view_asks_for(out: Path, kept: list[Row], stream: str) -> None:
    found = rows_at(out, f"data/{stream}/train-*-of-*.parquet")
    assert by_id(found) == by_id(row for row in kept if STREAMS[stream](row))


def test_what_is_held_out_lies_apart_by_source(out: Path, held: list[Row]) -> None:
    assert held
    for source in ("code", "web"):
        assert by_id(rows_at(out, f"heldout/{source}/*.parquet")) == by_id(r for r in held if r["source"] == source)


def test_every_file_says_how_many_there_are(out: Path) -> None:
    for folder in {path.parent for path in out.rglob("*.parquet")}:
        files = sorted(folder.glob("*.parquet"))
        assert [path.name[-16:] for path in files] == [f"of-{len(files):05d}.parquet" for _ in files]
        assert [int(path.name.split("-")[1]) for path in files] == list(range(len(files)))


def test_files_take_shards_up_to_a_size(
    sliced: Any, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "FILE_BYTES", 4000)
    finer = export(sliced.published[0].uri, tmp_path / "finer")
    assert len(list(finer.rglob("*.parquet"))) > len(list(out.rglob("*.parquet")))
    for stream in STREAMS:
        assert rows_at(finer, f"data/{stream}/*.parquet") == rows_at(out, f"data/{stream}/*.parquet")


def test_workers_do_not_change_a_byte(sliced: Any, out: Path, tmp_path: Path, ray_workers: Workers) -> None:
    other = export(sliced.published[0].uri, tmp_path / "out", ray_workers)
    assert open_artifact(other).manifest.id == open_artifact(out).manifest.id
    assert verify(other) == verify(out)


def test_datasets_loads_every_configuration_and_split(
    out: Path, kept: list[Row], held: list[Row], tmp_path: Path
) -> None:
    datasets = pytest.importorskip("datasets")
    cache = {"cache_dir": str(tmp_path)}
    whole = datasets.load_dataset(str(out), **cache)
    takes = [row for stream in STREAMS for row in kept if STREAMS[stream](row)]
    assert by_id(whole["train"]) == by_id(takes)
    assert by_id(whole["heldout"]) == by_id(held)
    assert set(datasets.get_dataset_config_names(str(out))) == {"default", *STREAMS}
    for stream, chosen in STREAMS.items():
        found = datasets.load_dataset(str(out), stream, **cache)
        assert by_id(found["train"]) == by_id(row for row in kept if chosen(row))
        source = stream.partition("_")[0]
        assert by_id(found["heldout"]) == by_id(row for row in held if row["source"] == source)
    streamed = datasets.load_dataset(str(out), "web", split="train", streaming=True)
    assert {row["id"] for row in streamed} == {row["id"] for row in kept if STREAMS["web"](row)}


def test_the_header_of_the_card_counts_what_is_there(out: Path, kept: list[Row], held: list[Row]) -> None:
    fields = header(out)
    assert fields["task_categories"] == ["text-generation"]
    assert fields["size_categories"] == ["n<1K"]
    assert fields["license"] == ["other", "mit"] or fields["license"] == ["mit", "other"]
    infos = {info["config_name"]: info for info in fields["dataset_info"]}
    for stream, chosen in STREAMS.items():
        counts = {split["name"]: split["num_examples"] for split in infos[stream]["splits"]}
        of_source = [row for row in held if row["source"] == stream.partition("_")[0]]
        assert counts == {"train": sum(map(chosen, kept)), "heldout": len(of_source)}
        files = [*out.glob(f"data/{stream}/*"), *out.glob(f"heldout/{stream.partition('_')[0]}/*")]
        assert infos[stream]["download_size"] == sum(path.stat().st_size for path in files)
    assert [feature["name"] for feature in infos["default"]["features"]] == ["id", "text", "source", "meta"]


def test_the_card_says_where_it_comes_from_and_what_each_stage_took(out: Path, sliced: Any) -> None:
    page = (out / "README.md").read_text()
    assert sliced.id in page
    for name, row in sliced.mixture.summary["sources"].items():
        assert f"| {name} | {row['records']:,} | " in page
    for phase in sliced.mixture.phases:
        for view, blocks in phase.draw.items():
            assert f"| {phase.name} | {view} | {blocks * sliced.mixture.block_tokens:,} | " in page
    assert str(sliced.store.root) not in page  # a card is published


def test_the_recipe_beside_the_card_is_the_one_that_was_built(out: Path, sliced: Any) -> None:
    assert read(out / "recipe.yaml") == DataRecipe.model_validate(sliced.mixture.config)


def test_columns_that_only_some_documents_have_are_carried_and_null_elsewhere(tmp_path: Path) -> None:
    wide = DOCUMENTS.append(pa.field("loss_from", pa.int32()))
    plain = [{"id": "a/1", "text": "one", "source": "a", "meta": "{}"}]
    answered = [{"id": "b/1", "text": "two", "source": "b", "meta": "{}", "loss_from": 2}]
    for stem, schema, rows in (("a", DOCUMENTS, plain), ("b", wide, answered)):
        writer = ShardWriter(tmp_path, stem, schema)
        writer.write(pa.Table.from_pylist(rows, schema=schema))
        writer.close()
    shards = (tmp_path / "a-00000.parquet", tmp_path / "b-00000.parquet")
    schema = schema_of(shards)
    written = write_part((0, Part("data/x", "train", shards)), schema=schema, directory=tmp_path)
    assert written.file is not None
    assert pq.read_table(tmp_path / written.file.path).to_pylist() == [{**plain[0], "loss_from": None}, *answered]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 200), st.booleans(), st.integers(0, 2)), unique_by=lambda t: t[0]))
def test_members_are_those_whose_ids_are_listed(
    tmp_path_factory: pytest.TempPathFactory, documents: list[tuple[int, bool, int]]
) -> None:
    place = tmp_path_factory.mktemp("members")
    stems = [place / f"tokens-{n}" for n in range(3)]
    for number, stem in enumerate(stems):
        listed = [f"s/{name}" for name, taken, shard in documents if taken and shard == number]
        with TokenWriter(stem, np.dtype("<u2")) as writer:
            for identifier in sorted([*listed, f"other/{number}"], key=lambda i: (hash64(i), i)):
                writer.add(identifier, np.zeros(1, "<u2"))
    ids = pa.chunked_array([[f"s/{name}" for name, _, _ in documents]], pa.string())
    assert members(ids, stems).tolist() == [row for row, (_, taken, _) in enumerate(documents) if taken]


@pytest.mark.parametrize(
    ("meta", "names"),
    [
        ({"license": "MIT"}, {"MIT"}),
        ({"max_stars_repo_licenses": ["Apache-2.0", "MIT"]}, {"Apache-2.0", "MIT"}),
        ({"repository": {"licence": "cc-by-4.0"}}, {"cc-by-4.0"}),
        ({"Licenses": ["ISC", "ISC"]}, {"ISC"}),
        ({"license": None, "note": "under an MIT license"}, set()),
        ({"license": "Permission is hereby granted, " * 10}, set()),
        ({}, set()),
    ],
)
def test_licences_are_what_the_metadata_names(meta: Row, names: set[str]) -> None:
    assert licences.named(pa.array([json.dumps(meta), "{}"])) == Counter(names)


def test_licences_that_the_hub_does_not_know_are_other() -> None:
    found = licences.hub_ids({"GPL-3.0-or-later": 3, "MIT": 9, "mit": 1, "their own": 4, "Apache 2.0": 5})
    assert found == ["mit", "apache-2.0", "other", "gpl-3.0"]


@pytest.mark.parametrize(
    ("documents", "name"),
    [(0, "n<1K"), (999, "n<1K"), (1000, "1K<n<10K"), (5 * 10**8, "100M<n<1B"), (10**11, "100B<n<1T"), (10**12, "n>1T")],
)
def test_size_categories_are_the_hubs(documents: int, name: str) -> None:
    assert size_category(documents) == name


# ---- what cannot be exported


@pytest.fixture
def copied(sliced: Any, tmp_path: Path) -> Path:
    """A copy of the store that a test may damage: its mixture."""
    shutil.copytree(sliced.store.root, tmp_path / "store")
    return tmp_path / "store" / "mixtures" / Path(sliced.published[0].uri).name


def test_documents_that_are_gone_are_named_and_what_to_do(copied: Path, tmp_path: Path) -> None:
    for directory in copied.parents[1].glob("deduped/web-*"):
        shutil.rmtree(directory)
    with pytest.raises(NotAnArtifact, match=r"deduped/web \w+, but at .* there is none; the tokens alone .*--format"):
        export(copied, tmp_path / "out")


def test_what_dedup_and_earlier_stages_made_besides_is_not_needed(copied: Path, out: Path, tmp_path: Path) -> None:
    for kind in ("documents", "signatures", "clusters", "ledger", "tokenizers"):
        shutil.rmtree(copied.parents[1] / kind)
    assert open_artifact(export(copied, tmp_path / "out")).manifest.id == open_artifact(out).manifest.id


def test_a_damaged_page_is_found_and_nothing_is_published(copied: Path, tmp_path: Path) -> None:
    (shard,) = copied.parents[1].glob("deduped/web-*/documents-00000-00000.parquet")
    data = bytearray(shard.read_bytes())
    data[len(data) // 3] ^= 255
    shard.write_bytes(data)
    with pytest.raises(CorruptArtifact, match=r"documents-00000-00000\.parquet cannot be read"):
        export(copied, tmp_path / "out")
    assert not (tmp_path / "out").exists()
