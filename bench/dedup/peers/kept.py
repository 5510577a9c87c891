"""Filtered Parquet, as a user of a library that only says what must go has to write it."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq


def write_kept(corpus: Path, out: Path, removed: Collection[str]) -> None:
    """The shards of the corpus without the removed documents, and the list of these."""
    (out / "kept").mkdir()
    gone = pa.array(list(removed), pa.string())
    for shard in sorted((corpus / "parquet").iterdir()):
        table = pq.read_table(shard)
        stays = pc.invert(pc.is_in(table["id"], gone))
        pq.write_table(table.filter(stays), out / "kept" / shard.name, compression="lz4")
    (out / "removed.txt").write_text("".join(f"{name}\n" for name in removed))
