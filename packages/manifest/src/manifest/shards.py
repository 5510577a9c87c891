"""The shards of a stream that has thousands: opened when they are read, and closed when others have been read since.

A system has room for some 65,000 memory maps in a process (Linux: vm.max_map_count), and opening a shard takes as long
as reading a few blocks of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import overload

from manifest.errors import CorruptArtifact
from manifest.indexed import Shard, open_shard
from manifest.mixture import TokenShard

AT_ONCE = 256
"""So many shards of a stream are opened when it is, so that a damaged one is found before work begins."""
KEPT = 2048
"""So many stay open, of a stream that has more."""


def open_shards(directory: Path, entries: Sequence[TokenShard]) -> Sequence[Shard]:
    """The shards that a mixture lists. Raises CorruptArtifact if they are not what it says."""
    many = len(entries) > AT_ONCE
    later = ShardsOpenedLater(directory, entries, at_random=many)
    return later if many else tuple(later)


class ShardsOpenedLater(Sequence[Shard]):
    """Opens a shard where it is asked for. What is wrong with it is raised there. at_random: as for `open_shard`."""

    def __init__(self, directory: Path, entries: Sequence[TokenShard], *, at_random: bool) -> None:
        self._directory, self._entries, self._at_random = directory, entries, at_random
        self._opened = lru_cache(maxsize=KEPT)(self._open)

    def __len__(self) -> int:
        return len(self._entries)

    @overload
    def __getitem__(self, index: int) -> Shard: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Shard]: ...

    def __getitem__(self, index: int | slice) -> Shard | Sequence[Shard]:
        if isinstance(index, slice):
            return [self._opened(i) for i in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self._opened(index)

    def _open(self, index: int) -> Shard:
        entry = self._entries[index]
        stem = (self._directory / entry.bin.path).with_suffix("")
        shard = open_shard(stem, masked=entry.mask is not None, at_random=self._at_random)
        if shard.tokens.size != entry.tokens:
            raise CorruptArtifact(
                f"{stem} has {shard.tokens.size} tokens; the mixture says {entry.tokens}. Build the mixture again"
            )
        return shard
