"""The mixture: the one manifest that crosses from data to training.

Phases draw whole blocks of `block_tokens` tokens from views; a view is a stream, perhaps transformed when it
is read; a stream is the tokens of a source (or of a slice of it) as shards in Megatron's indexed format.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from manifest.record import FileEntry, Manifest, Model, Reference


class FimTokens(Model):
    """The ids of the tokens that mark a document rearranged for fill-in-the-middle, and of the padding after it."""

    prefix: int = Field(ge=0)
    middle: int = Field(ge=0)
    suffix: int = Field(ge=0)
    pad: int = Field(ge=0)


class Tokenizer(Model):
    """The tokenizer of every stream. `digest` is over its files; `end_of_text` closes each document; `fim` is there
    where the vocabulary has such tokens.
    """

    uri: str
    digest: str
    vocab_size: int = Field(gt=0)
    end_of_text: int = Field(ge=0)
    fim: FimTokens | None = None

    @model_validator(mode="after")
    def _tokens_are_its_own(self) -> Self:
        if self.fim is not None:
            ids = {"end_of_text": self.end_of_text, **dict(self.fim)}
            beyond = [name for name, number in ids.items() if number >= self.vocab_size]
            if beyond:
                raise ValueError(f"{', '.join(beyond)}: not among the {self.vocab_size} tokens of the vocabulary")
            if len(set(ids.values())) < len(ids):
                raise ValueError(f"two of {ids} are the same token; each needs one of its own")
        return self


class TokenShard(Model):
    """One shard of a stream; see indexed.py. `mask` is there where only a part of a document is learned."""

    bin: FileEntry
    idx: FileEntry
    ids: FileEntry
    mask: FileEntry | None = None
    tokens: int = Field(ge=0)
    documents: int = Field(ge=0)

    def files(self) -> Iterator[FileEntry]:
        return (entry for entry in (self.bin, self.idx, self.ids, self.mask) if entry is not None)


class Stream(Model):
    """The tokens of a source, end to end, in order of id hash. `blocks` = ⌈tokens / block_tokens⌉."""

    uri: str
    id: str
    tokens: int = Field(gt=0)
    documents: int = Field(gt=0)
    blocks: int = Field(gt=0)
    shards: tuple[TokenShard, ...]


class View(Model):
    """How a phase reads a stream.

    of: the source it was declared over. where, part, template: which of its documents the stream has, and how they are
    written; they say what the stream is and change nothing when it is read. fim: the share of documents in a window
    that are rearranged when they are read.
    """

    of: str
    stream: str
    where: dict[str, tuple[str | bool | int | float, ...]] = Field(default_factory=dict)
    part: Literal["even", "odd"] | tuple[float, float] | None = None
    template: str | None = None
    fim: float | None = Field(default=None, gt=0, le=1)


class Phase(Model):
    """How many blocks a phase draws from each view. `seed` is the order's, unless the run names another."""

    name: str
    seed: int = 0
    draw: dict[str, int]

    @property
    def blocks(self) -> int:
        return sum(self.draw.values())


class Mixture(Manifest):
    """Manifest of kind `mixture`, version 1."""

    kind: Literal["mixture"] = "mixture"
    tokenizer: Tokenizer
    block_tokens: int = Field(gt=0)
    streams: dict[str, Stream]
    views: dict[str, View]
    phases: tuple[Phase, ...]
    heldout: Reference | None = None
    summary: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _names_exist(self) -> Self:
        for name, view in self.views.items():
            if view.stream not in self.streams:
                raise ValueError(f"view {name!r} reads stream {view.stream!r}, which the mixture does not have")
            if view.fim is not None and self.tokenizer.fim is None:
                raise ValueError(f"view {name!r} is for fill-in-the-middle, and the tokenizer has no tokens for it")
        for phase in self.phases:
            for name, blocks in phase.draw.items():
                if name not in self.views:
                    raise ValueError(f"phase {phase.name!r} draws from view {name!r}, which the mixture does not have")
                if blocks < 0:
                    raise ValueError(f"phase {phase.name!r} draws {blocks} blocks from {name!r}")
        names = [phase.name for phase in self.phases]
        if len(set(names)) != len(names):
            raise ValueError(f"two phases share a name: {names}")
        return self

    @property
    def tokens(self) -> int:
        """Tokens drawn over all phases."""
        return sum(phase.blocks for phase in self.phases) * self.block_tokens

    def phase(self, name: str) -> Phase:
        """The phase of that name. Raises KeyError."""
        return next(phase for phase in self.phases if phase.name == name)
