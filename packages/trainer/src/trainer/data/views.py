"""A window of a stream → the row that the model learns from: as its view shows it, and which tokens are targets.

    window ──stream──► tokens, mask ──view (fill-in-the-middle)──► tokens (T,), learned (T,) ──phase──► weights (T − 1,)

Late and pure: shards hold plain text, and the row is a function of (seed, stream, epoch, block, window), whatever the
ranks. T tokens of a window.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from manifest.artifact import Opened
from manifest.checkpoint import Timeline
from manifest.corpus import PADDING, Owners
from manifest.errors import CorruptArtifact
from manifest.mixture import Mixture
from manifest.packed import AnyStream
from trainer.data.fim import COUNTS, Fim
from trainer.data.windows import Stretch, Window
from trainer.recipe import PhaseRecipe
from trainer.tokenizer import open_tokenizer

UNTOUCHED = (0,) * len(COUNTS)


@dataclass(frozen=True)
class Reading:
    """How the windows of a phase are read. answers: only what the masks mark is learned. documents: none sees another.

    The default is all tokens, one after the other.
    """

    answers: bool = False
    documents: bool = False

    @property
    def plain(self) -> bool:
        """Whether all tokens are learned, one after the other."""
        return not (self.answers or self.documents)


def reading(phase: PhaseRecipe) -> Reading:
    """What a recipe's phase says of it."""
    return Reading(answers=phase.loss_on == "answer", documents=phase.packing != "concat")


@dataclass(frozen=True)
class Row:
    """A window as the model sees it.

    tokens (T,). weights (T − 1,): 1 where token t + 1 is learned, else 0. documents (T,): where none sees another,
    which of the window's documents a token is of, counted from 0; PADDING for what is of none. counts: what
    fill-in-the-middle did, as in `fim.COUNTS`.
    """

    tokens: npt.NDArray[np.int64]
    weights: npt.NDArray[np.float32]
    documents: npt.NDArray[np.int32]
    counts: tuple[int, ...]


@dataclass(frozen=True)
class Reader:
    """Reads windows. streams by tokens id, those in bins by their pack's; fim: what rearranges the windows of a view,
    for views that have it.
    """

    streams: Mapping[str, AnyStream]
    fim: Mapping[str, Fim]
    seed: int
    vocab_size: int
    end_of_text: int

    def plain(self, stretch: Stretch, tokens_T: npt.NDArray[np.int64]) -> bool:
        """Writes the tokens of a stretch of windows, if its view shows them as they lie, and returns whether it does.

        Raises as `row` does, which reads the windows of every view.
        """
        if stretch.view in self.fim:
            return False
        found = self.streams[stretch.stream].read(stretch.start, tokens_T.size)
        if np.maximum.reduce(found) >= self.vocab_size:  # `found.max()` asks more of Python
            for window in stretch.windows():
                self.row(window, Reading())
        tokens_T[:] = found
        return True

    def row(self, window: Window, how: Reading) -> Row:
        """A window as its view shows it. Raises CorruptArtifact for a token that the tokenizer does not have."""
        stream = self.streams[window.stream]
        tokens_T = stream.read(window.start, window.length).astype(np.int64)
        self._require_known(tokens_T, window)
        learned_T = stream.learned(window.start, window.length) if how.answers else np.ones(window.length, bool)
        documents_T = stream.owners(window.start, window.length) if how.documents else np.zeros(window.length, np.int32)
        counts = UNTOUCHED
        if window.view in self.fim:
            made = self.fim[window.view].rearrange(tokens_T, self._key(window))
            tokens_T, counts = made.tokens, made.counts
            learned_T = np.arange(window.length) < made.length
            documents_T = self._documents(tokens_T) if how.documents else documents_T
        learned_T = learned_T & (documents_T != PADDING)
        learned = learned_T[1:] & (documents_T[1:] == documents_T[:-1])
        return Row(tokens_T, learned.astype(np.float32), documents_T, counts)

    def _documents(self, tokens_T: npt.NDArray[np.int64]) -> Owners:
        """The documents of a row that was rearranged: an end-of-text is of the document that it ends."""
        ends_T = tokens_T == self.end_of_text
        documents_T: Owners = np.cumsum(ends_T, dtype=np.int32) - ends_T
        return documents_T

    def _key(self, window: Window) -> str:
        where = f"{window.stream}|{window.epoch}|{window.block}|{window.number}"
        return f"winnow fim 1|{self.seed}|{where}"

    def _require_known(self, tokens_T: npt.NDArray[np.int64], window: Window) -> None:
        if tokens_T.max() >= self.vocab_size:
            raise CorruptArtifact(
                f"a window of view {window.view} at token {window.start} of its stream holds token "
                f"{tokens_T.max()}; the tokenizer has {self.vocab_size}. The shard has changed: find it "
                "with `manifest verify`, and restore it"
            )


def open_reader(mixture: Opened, timeline: Timeline, streams: Mapping[str, AnyStream]) -> Reader:
    """Reads the windows of a run. streams as for `Reader`. Raises ArtifactError as `open_tokenizer` does."""
    manifest = mixture.manifest
    assert isinstance(manifest, Mixture)
    return Reader(
        streams,
        _fim(mixture, manifest, {draw.view for segment in timeline.order.segments for draw in segment.draws}),
        seed=timeline.order.seed,
        vocab_size=manifest.tokenizer.vocab_size,
        end_of_text=manifest.tokenizer.end_of_text,
    )


def _fim(mixture: Opened, manifest: Mixture, drawn: set[str]) -> dict[str, Fim]:
    rates = {name: view.fim for name, view in manifest.views.items() if name in drawn and view.fim is not None}
    if not rates:
        return {}
    tokens = manifest.tokenizer.fim
    assert tokens is not None, "the mixture's own rule"
    tokenizer = open_tokenizer(mixture)
    return {
        name: Fim(tokenizer, tokens, end_of_text=manifest.tokenizer.end_of_text, rate=rate)
        for name, rate in rates.items()
    }
