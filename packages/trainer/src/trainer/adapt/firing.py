"""Which new tokens the mixture ever reads: a row that never fires learns nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from manifest.artifact import Opened, open_streams
from manifest.mixture import Mixture

SAMPLE_TOKENS = 1_000_000_000
"""Of each stream. Documents lie in order of the hashes of their ids, so its first tokens are a sample of it."""
CHUNK = 1 << 24
SHOWN = 8


@dataclass(frozen=True)
class Firing:
    """counts (V,): how often each token stands in the streams that phases draw from; of `total` tokens, `read` were
    counted.
    """

    counts: npt.NDArray[np.int64]
    read: int
    total: int


def count(mixture: Opened, limit: int = SAMPLE_TOKENS) -> Firing:
    """Counts the tokens of every stream that a phase draws from, at most `limit` of each."""
    record = mixture.manifest
    assert isinstance(record, Mixture)
    drawn = {record.views[view].stream for phase in record.phases for view, n in phase.draw.items() if n}
    counts = np.zeros(record.tokenizer.vocab_size, np.int64)
    read = 0
    for name, stream in open_streams(mixture).items():
        if name in drawn:
            wanted = min(stream.tokens, limit)
            for first in range(0, wanted, CHUNK):
                chunk = stream.read(first, min(CHUNK, wanted - first))
                counts += np.bincount(chunk, minlength=len(counts))
            read += wanted
    return Firing(counts, read, sum(record.streams[name].tokens for name in drawn))


def remarks(firing: Firing, new: Mapping[int, str]) -> Iterator[str]:
    """What a user should know of the new tokens before training begins. new: the text of each, by id."""
    silent = [number for number in new if not firing.counts[number]]
    fires = int(sum(firing.counts[number] for number in new))
    how = "all" if firing.read == firing.total else f"a sample of {firing.read:,} of the"
    yield (
        f"{len(new) - len(silent):,} of {len(new):,} new tokens fire in the mixture: {fires:,} times in "
        f"{how} {firing.total:,} tokens of its streams"
    )
    if silent:
        shown = ", ".join(f"{number} {new[number]!r}" for number in silent[:SHOWN])
        more = f" and {len(silent) - SHOWN:,} more" if len(silent) > SHOWN else ""
        yield (
            f"warning: new tokens that never fire there, so that nothing is learned of them ({len(silent):,}): "
            f"{shown}{more}. Learn fewer tokens, or read more of the text that has them"
        )
