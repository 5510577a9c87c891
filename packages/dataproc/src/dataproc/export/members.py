"""Which documents of a shard belong to a stream: those whose ids its token shards list."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from manifest.identity import hash64
from manifest.indexed import open_shard


def members(ids: pa.ChunkedArray, stems: Sequence[Path]) -> npt.NDArray[np.int64]:
    """The rows, ascending, of the ids that are in the token shards `stem.ids`.

    Opens one token shard at a time. Their hashes are searched; that the ids behind them are equal is checked.
    """
    names = ids.to_pylist()
    hashes = np.array([hash64(name) for name in names], np.uint64)
    order = np.argsort(hashes, kind="stable")
    in_order = hashes[order]
    found: list[int] = []
    for stem in stems:
        shard = open_shard(stem)
        if shard.documents == 0:
            continue
        low = np.searchsorted(in_order, shard.hashes[0], side="left")
        high = np.searchsorted(in_order, shard.hashes[-1], side="right")
        places = np.searchsorted(shard.hashes, in_order[low:high])
        places[places == shard.documents] = 0  # whose hash is another one
        rows = order[low:high][shard.hashes[places] == in_order[low:high]]
        found += [int(row) for row in rows if shard.find(names[row]) is not None]
    return np.array(sorted(found), np.int64)
