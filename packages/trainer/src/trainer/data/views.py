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
from manifest.corpus import TokenStream
from manifest.errors import CorruptArtifact
from manifest.mixture import Mixture
from trainer.data.fim import COUNTS, Fim
from trainer.data.windows import Window
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


def reading(phase: PhaseRecipe) -> Reading:
    """What a recipe's phase says of it."""
    return Reading(answers=phase.loss_on == "answer", documents=phase.packing == "documents")


@dataclass(frozen=True)
class Row:
    """A window as the model sees it.

    tokens (T,). weights (T − 1,): 1 where token t + 1 is learned, else 0. documents (T,): which of the window's
    documents a token is of, counted from 0. counts: what fill-in-the-middle did, as in `fim.COUNTS`.
    """

    tokens: npt.NDArray[np.int64]
    weights: npt.NDArray[np.float32]
    documents: npt.NDArray[np.int32]
    counts: tuple[int, ...]


@dataclass(frozen=True)
class Reader:
    """Reads windows. streams by tokens id; fim: what rearranges the windows of a view, for views that have it."""

    streams: Mapping[str, TokenStream]
    fim: Mapping[str, Fim]
    seed: int
    vocab_size: int
    end_of_text: int

    def row(self, window: Window, how: Reading) -> Row:
        """A window as its view shows it. Raises CorruptArtifact for a token that the tokenizer does not have."""
        stream = self.streams[window.stream]
        tokens_T = stream.read(window.start, window.length).astype(np.int64)
        self._require_known(tokens_T, window)
        learned_T = stream.learned(window.start, window.length) if how.answers else np.ones(window.length, bool)
        counts = UNTOUCHED
        if window.view in self.fim:
            made = self.fim[window.view].rearrange(tokens_T, self._key(window))
            tokens_T, counts = made.tokens, made.counts
            learned_T = np.arange(window.length) < made.length
        ends_T = tokens_T == self.end_of_text
        learned = learned_T[1:] & ~ends_T[:-1] if how.documents else learned_T[1:]
        documents_T = (np.cumsum(ends_T) - ends_T).astype(np.int32)  # an end-of-text is of the document that it ends
        return Row(tokens_T, learned.astype(np.float32), documents_T, counts)

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


def open_reader(mixture: Opened, timeline: Timeline, streams: Mapping[str, TokenStream]) -> Reader:
    """Reads the windows of a run. streams by tokens id. Raises ArtifactError as `open_tokenizer` does."""
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
