"""What a data card says, as a record."""

from __future__ import annotations

from pydantic import Field

from dataproc.dedup.overlap import Overlap
from manifest.record import Model


class Retention(Model):
    """What became of a source, in the columns of SlimPajama's table. Documents are counted once, short first.

    bytes_in: of the text of all documents that are long enough; bytes_kept: of what is trained on.
    """

    records: int
    unreadable: int
    short: int
    tombstoned: int = 0
    contaminated: int = 0
    duplicates_within: int
    duplicates_across: int
    heldout: int
    near_heldout: int
    kept: int
    bytes_in: int
    bytes_kept: int
    tokens: int

    @property
    def duplicates(self) -> int:
        return self.duplicates_within + self.duplicates_across

    @property
    def short_share(self) -> float:
        return _share(self.short, self.records - self.unreadable)

    @property
    def duplicate_share(self) -> float:
        """Duplicates among all documents that could be read, short ones too."""
        return _share(self.duplicates, self.records - self.unreadable)

    @property
    def bytes_removed_share(self) -> float:
        return 1 - _share(self.bytes_kept, self.bytes_in) if self.bytes_in else 0.0


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


class SourceCard(Model):
    """A source. licences: what the metadata of the kept documents says → how many say it; "" where none does."""

    name: str
    licences: dict[str, int]
    retention: Retention


class StreamCard(Model):
    """A stream: epochs over all phases."""

    name: str
    source: str
    choice: str
    tokens: int
    documents: int
    epochs: float


class Draw(Model):
    """What a phase draws through a view."""

    view: str
    stream: str
    fim: float | None
    tokens: int
    share: float
    epochs: float


class PhaseCard(Model):
    name: str
    tokens: int
    draws: tuple[Draw, ...]


class Removed(Model):
    """A document that is not in the mixture, and why. survivor, jaccard: of a near-duplicate."""

    id: str
    why: str
    excerpt: str
    survivor: str = ""
    survivor_excerpt: str = ""
    jaccard: float | None = None


class Card(Model):
    """A data card. divergences[A][B]: KL(A ‖ B) of the unigrams of two streams, bits per token."""

    name: str
    id: str
    tokens: int
    documents: int
    vocab_size: int
    tokenizer: str
    block_tokens: int
    sources: tuple[SourceCard, ...]
    streams: tuple[StreamCard, ...]
    phases: tuple[PhaseCard, ...]
    dedup: str
    heldout: int
    overlap: Overlap | None
    divergences: dict[str, dict[str, float]]
    removed: tuple[Removed, ...]
    overridden: tuple[dict[str, str | int | float], ...] = Field(default=())
