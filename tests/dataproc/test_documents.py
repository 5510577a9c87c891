"""The digest of rows: blind to how they are stored, and to nothing else."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataproc.documents import RowDigest, ShardWriter, batches, picked, rows_of
from manifest.errors import CorruptArtifact

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("text", pa.large_string()),
        ("count", pa.int64()),
        ("share", pa.float64()),
        ("hash", pa.binary(4)),
    ]
)
Row = tuple[str, str, int, float, bytes]
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
ROW = st.tuples(
    TEXT, TEXT, st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False), st.binary(min_size=4, max_size=4)
)
ROWS = st.lists(ROW, max_size=8)


def table(rows: list[Row]) -> pa.Table:
    return pa.Table.from_pylist([dict(zip(SCHEMA.names, row, strict=True)) for row in rows], schema=SCHEMA)


def digest(*tables: pa.Table) -> str:
    made = RowDigest(SCHEMA)
    for part in tables:
        made.update(part)
    return made.hexdigest()


@given(ROWS, st.lists(st.integers(0, 8), max_size=4))
def test_batches_and_slices_are_no_part_of_the_digest(rows: list[Row], cuts: list[int]) -> None:
    whole = table(rows)
    bounds = [0, *sorted(min(cut, len(rows)) for cut in cuts), len(rows)]
    spans = list(itertools.pairwise(bounds))
    assert digest(*(whole.slice(a, b - a) for a, b in spans)) == digest(whole)
    assert digest(*(table(rows[a:b]) for a, b in spans)) == digest(whole)
    assert digest(*whole.to_batches(max_chunksize=1)) == digest(whole)


@given(ROWS.filter(len), st.data())
def test_every_cell_is_part_of_the_digest(rows: list[Row], data: st.DataObject) -> None:
    row = data.draw(st.integers(0, len(rows) - 1))
    column = data.draw(st.integers(0, len(SCHEMA) - 1))
    changed = list(rows)
    cells: list[Any] = list(rows[row])
    cells[column] = data.draw(ROW)[column]
    changed[row] = tuple(cells)  # type: ignore[assignment]
    same = np.array_equal(np.array([repr(r) for r in rows]), np.array([repr(r) for r in changed]))
    assert (digest(table(changed)) == digest(table(rows))) == same


@given(ROWS, ROWS)
def test_two_tables_share_a_digest_only_if_they_are_equal(first: list[Row], second: list[Row]) -> None:
    assert (digest(table(first)) == digest(table(second))) == (repr(first) == repr(second))


def test_text_cannot_move_from_one_cell_to_the_next() -> None:
    rows = [[("ab", "c"), ("d", "")], [("a", "bc"), ("d", "")], [("ab", ""), ("d", "c")], [("abd", "c"), ("", "")]]
    digests = {digest(table([(a, b, 0, 0.0, b"0000") for a, b in cells])) for cells in rows}
    assert len(digests) == len(rows)


def test_names_and_types_of_columns_are_part_of_the_digest() -> None:
    schemas = [pa.schema([(name, kind)]) for name in "ab" for kind in (pa.string(), pa.large_string(), pa.int64())]
    assert len({RowDigest(schema).hexdigest() for schema in schemas}) == 6


@given(ROWS.filter(len))
def test_compression_is_no_part_of_the_digest(tmp_path_factory: pytest.TempPathFactory, rows: list[Row]) -> None:
    directory = tmp_path_factory.mktemp("shard")
    writer = ShardWriter(directory, "rows", SCHEMA)
    writer.write(table(rows))
    (shard,) = writer.close()
    for compression in ("none", "snappy"):
        path = directory / "again.parquet"
        pq.write_table(table(rows), path, compression=compression, row_group_size=1)
        assert digest(rows_of(path)) == shard.digest
        assert digest(*batches(path)) == shard.digest


@pytest.mark.parametrize("limit", ["SHARD_BYTES", "SHARD_ROWS"])
def test_a_shard_is_closed_when_it_is_full_and_none_is_made_of_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    monkeypatch.setattr(f"dataproc.documents.{limit}", 1)
    writer, one = ShardWriter(tmp_path, "rows", SCHEMA), ShardWriter(tmp_path, "one", SCHEMA, whole=True)
    for i in range(3):
        for each in (writer, one):
            each.write(table([(str(i), "", 0, 0.0, b"0000")]))
            each.write(table([]))
    assert [(shard.path, shard.rows) for shard in writer.close()] == [(f"rows-0000{i}.parquet", 1) for i in range(3)]
    assert [(shard.path, shard.rows) for shard in one.close()] == [("one-00000.parquet", 3)]
    assert ShardWriter(tmp_path, "none", SCHEMA).close() == ()
    assert len(list(tmp_path.iterdir())) == 4


def test_a_batch_is_never_more_than_was_written_at_once(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path, "rows", SCHEMA)
    for size in (1, 3, 2):
        writer.write(table([("i", "t", 0, 0.0, b"0000")] * size))
    writer.close()
    assert [batch.num_rows for batch in batches(tmp_path / "rows-00000.parquet")] == [1, 3, 2]


@pytest.mark.parametrize("damage", ["a byte", "the end", "all"])
def test_a_damaged_shard_is_reported(tmp_path: Path, damage: str) -> None:
    writer = ShardWriter(tmp_path, "rows", SCHEMA)
    writer.write(table([(f"{i}", f"text {i * 7919}", i, i / 7, b"0000") for i in range(500)]))
    writer.close()
    path = tmp_path / "rows-00000.parquet"
    data = bytearray(path.read_bytes())
    data[1000] ^= 1
    path.write_bytes({"a byte": bytes(data), "the end": bytes(data[:-100]), "all": b"garbage"}[damage])
    for read in (rows_of, lambda path: list(batches(path))):
        with pytest.raises(CorruptArtifact, match=r"rows-00000\.parquet cannot be read .* Delete .* run the same"):
            read(path)


@pytest.mark.parametrize("asked", [[0, 1], [0, 0], [1], [0, 0, 1, 1]])
def test_rows_are_picked_as_often_as_they_are_asked_for(tmp_path: Path, asked: list[int]) -> None:
    writer = ShardWriter(tmp_path, "documents", SCHEMA)
    writer.write(table([("a", "", 1, 0.0, bytes(4)), ("b", "", 2, 0.0, bytes(4))]))
    (shard,) = writer.close()
    found = picked(tmp_path / shard.path, ["id"], np.array(asked))
    assert [name for batch in found for name in batch["id"].to_pylist()] == ["ab"[row] for row in asked]
