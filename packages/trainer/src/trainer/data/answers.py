"""Whether the windows of a phase are long enough for the answers that it learns: asked before a run begins."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from manifest.artifact import Opened, open_streams
from manifest.corpus import TokenStream
from manifest.errors import RecipeError
from manifest.indexed import Shard
from manifest.mixture import Mixture
from trainer.recipe import TrainRecipe


@dataclass(frozen=True)
class Long:
    """Answers of a stream that no window shows whole: so many of `answers`, the longest of them, and its document.

    Lengths are tokens that are learned.
    """

    count: int
    answers: int
    longest: int
    document: str


def long_answers(stream: TokenStream, seq_len: int) -> Long:
    """The answers of more than seq_len − 1 tokens: a window learns all of its tokens but the first."""
    count = answers = longest = 0
    document = ""
    for shard in stream.shards:
        starts, lengths = _answers(shard)
        answers += len(lengths)
        count += int((lengths >= seq_len).sum())
        if len(lengths) and int(lengths.max()) > longest:
            at = int(lengths.argmax())
            longest = int(lengths[at])
            document = next(
                shard.document_id(index) for index, _, _ in shard.spans(int(starts[at]), int(starts[at]) + 1)
            )
    return Long(count, answers, longest, document)


def _answers(shard: Shard) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Where each run of learned tokens within a document begins, and how long it is. Empty without a mask."""
    if shard.mask is None:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    learned = np.asarray(shard.mask, bool)
    begins, ends = learned.copy(), learned.copy()
    begins[1:] &= ~learned[:-1]
    ends[:-1] &= ~learned[1:]
    first = np.asarray(shard.pointers, np.int64) // shard.tokens.itemsize
    begins[first] |= learned[first]
    ends[first[1:] - 1] |= learned[first[1:] - 1]
    starts, lasts = np.flatnonzero(begins), np.flatnonzero(ends)
    return starts, lasts - starts + 1


def require_whole_answers(mixture: Opened, recipe: TrainRecipe, where: str) -> None:
    """Raises RecipeError, naming `where` (the recipe's file), if an answer is longer than the windows of a phase that
    learns answers and does not say that they may be cut.
    """
    for name, stream, found in _long(mixture, recipe):
        phase = recipe.phases[name]
        if phase.long_answers == "refuse":
            raise RecipeError(
                f"{where}: phases.{name}.seq_len: found {phase.seq_len}, and {_described(found, stream)}. Raise seq_len"
                f" (above {found.longest} all are whole), or set `long_answers: cut` to learn them in pieces"
            )


def answer_remarks(mixture: Opened, recipe: TrainRecipe) -> Iterator[str]:
    """Which answers are cut, where the recipe allows it."""
    for name, stream, found in _long(mixture, recipe):
        yield f"phase {name!r}: {_described(found, stream)}: they are learned in pieces"


def _described(found: Long, stream: str) -> str:
    return (
        f"{found.count:,} of {found.answers:,} answers of stream {stream} are longer than a window shows, up to "
        f"{found.longest:,} tokens ({found.document})"
    )


def _long(mixture: Opened, recipe: TrainRecipe) -> Iterator[tuple[str, str, Long]]:
    """Each phase that learns answers, with the streams that have some that are too long."""
    manifest = mixture.manifest
    assert isinstance(manifest, Mixture)
    streams: dict[str, TokenStream] = {}
    known: dict[tuple[str, int], Long] = {}
    for name, phase in recipe.phases.items():
        drawn = {manifest.views[view].stream for view, blocks in manifest.phase(name).draw.items() if blocks}
        for stream in sorted(drawn) if phase.loss_on == "answer" else ():
            streams = streams or open_streams(mixture)
            key = stream, phase.seq_len
            known[key] = known[key] if key in known else long_answers(streams[stream], phase.seq_len)
            if known[key].count:
                yield name, stream, known[key]
