"""Fill-in-the-middle: the segments of a window, rearranged when it is read.

    a b c ⏎ d e f g ⏎ h i     a window, cut at end-of-text into segments, each of them rearranged with p = rate
              │ decode, cut at two characters, encode the three parts
              ▼
    PSM  <prefix> d <suffix> g <middle> e f            "prefix, suffix, middle"
    SPM  <prefix> <suffix> g <middle> d e f            "suffix, prefix, middle", with p = ½

The format is that of Bavarian et al. (2022), SPM in its second variant; drawn per segment of a packed window, and cut
between characters, as in CrystalCoder's preparation. A row that got too long loses its tail, one that got too short is
padded; no end-of-text is added after the last segment.

A window may begin or end inside a character. The up to three tokens at that end that are no text by themselves stay as
they are, before the prefix or after the suffix, so nothing is lost. A segment that holds a special token, or whose text
does not come back from its tokens, is kept as it is, and counted.

All that is random is a function of the key: the raw output of Philox under BLAKE2b of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from manifest.mixture import FimTokens

COUNTS = ("segments", "rearranged", "suffix_first", "kept", "truncated", "padding")
"""What is counted of a window: segments that are not empty; those rearranged, and with the suffix first; those drawn
but kept as they are; tokens that the window's tail lost, and that padding gave it.
"""

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
STRAY = 3
"""Most tokens of a character that a window cuts: it has up to four bytes, and a token at least one."""

Ids = list[int]


@dataclass(frozen=True)
class Rearranged:
    """tokens (T,): the row, of which the first `length` are not padding. counts: in the order of COUNTS."""

    tokens: npt.NDArray[np.int64]
    length: int
    counts: tuple[int, ...]


@dataclass(frozen=True)
class Drawn:
    """What was drawn for a segment: whether it is rearranged, where it is cut (shares of its text), and how."""

    chosen: bool
    cuts: tuple[float, float]
    suffix_first: bool


@dataclass(frozen=True)
class Plain:
    """A segment as text, and the tokens before and after it that are a part of a character."""

    head: Ids
    text: str
    tail: Ids


def draw(key: str, segments: int, rate: float) -> list[Drawn]:
    """The draws of each segment of a window: the same for the same key, on every machine and version of NumPy."""
    digest = hashlib.blake2b(key.encode(), digest_size=16).digest()
    raw = np.random.Philox(key=int.from_bytes(digest, "big")).random_raw(4 * segments)
    uniform_S4 = ((raw >> np.uint64(11)) * 2.0**-53).reshape(segments, 4)
    return [Drawn(u < rate, (min(a, b), max(a, b)), v < 0.5) for u, a, b, v in uniform_S4.tolist()]


def thirds(text: str, cuts: tuple[float, float]) -> tuple[str, str, str]:
    """Prefix, middle and suffix: cut before any character or after the last, each as likely."""
    first, second = (int(cut * (len(text) + 1)) for cut in cuts)
    return text[:first], text[first:second], text[second:]


def split(tokens: Sequence[int], end_of_text: int) -> list[Ids]:
    """The segments between the end-of-text tokens; some may be empty."""
    segments: list[Ids] = [[]]
    for token in tokens:
        if token == end_of_text:
            segments.append([])
        else:
            segments[-1].append(token)
    return segments


class Fim:
    """Rearranges the windows of a view."""

    def __init__(self, tokenizer: Tokenizer, tokens: FimTokens, *, end_of_text: int, rate: float) -> None:
        """tokenizer: encodes special tokens in a text as text (`encode_special_tokens`)."""
        assert tokenizer.encode_special_tokens
        self._tokenizer, self._tokens, self._end_of_text, self._rate = tokenizer, tokens, end_of_text, rate
        special = {number for number, token in tokenizer.get_added_tokens_decoder().items() if token.special}
        self._special = frozenset(special | {end_of_text, tokens.prefix, tokens.middle, tokens.suffix, tokens.pad})

    def rearrange(self, tokens_T: npt.NDArray[np.generic], key: str) -> Rearranged:
        """A window as the view shows it. key: what makes this reading of it this reading."""
        segments = split(tokens_T.tolist(), self._end_of_text)
        drawn = draw(key, len(segments), self._rate)
        chosen = [i for i, segment in enumerate(segments) if segment and drawn[i].chosen]
        made = self._made([segments[i] for i in chosen], [drawn[i] for i in chosen])
        done = {i: new for i, new in zip(chosen, made, strict=True) if new is not None}
        row: Ids = []
        for i, segment in enumerate(segments):
            row += [*([self._end_of_text] if i else []), *done.get(i, segment)]
        length = min(len(row), tokens_T.size)
        counts = (
            sum(map(bool, segments)),
            len(done),
            sum(drawn[i].suffix_first for i in done),
            len(chosen) - len(done),
            len(row) - length,
            tokens_T.size - length,
        )
        row = row[:length] + [self._tokens.pad] * (tokens_T.size - length)
        return Rearranged(np.array(row, np.int64), length, counts)

    def _made(self, segments: Sequence[Ids], drawn: Sequence[Drawn]) -> Iterator[Ids | None]:
        """Each segment rearranged; None where it is kept."""
        plain = self._plain(segments)
        parts = [part for p, d in zip(plain, drawn, strict=True) if p for part in thirds(p.text, d.cuts)]
        encoded = [found.ids for found in self._tokenizer.encode_batch_fast(parts, add_special_tokens=False)]
        same = [back == part for back, part in zip(self._decoded(encoded), parts, strict=True)]
        at = 0
        for p, d in zip(plain, drawn, strict=True):
            if p is None:
                yield None
                continue
            prefix, middle, suffix = encoded[at : at + 3]
            sound = all(same[at : at + 3]) and self._special.isdisjoint([*prefix, *middle, *suffix])
            yield self._joined([*p.head, *prefix], middle, [*suffix, *p.tail], d.suffix_first) if sound else None
            at += 3

    def _joined(self, prefix: Ids, middle: Ids, suffix: Ids, suffix_first: bool) -> Ids:
        mark = self._tokens
        if suffix_first:
            return [mark.prefix, mark.suffix, *suffix, mark.middle, *prefix, *middle]
        return [mark.prefix, *prefix, mark.suffix, *suffix, mark.middle, *middle]

    def _plain(self, segments: Sequence[Ids]) -> list[Plain | None]:
        """The segments as text; None where there is no text that stands for all of the tokens."""
        found: list[Plain | None] = []
        for segment, text in zip(segments, self._decoded(segments), strict=True):
            if not self._special.isdisjoint(segment):
                found.append(None)
            else:
                found.append(Plain([], text, []) if REPLACEMENT not in text else self._whole_characters(segment))
        return found

    def _whole_characters(self, segment: Ids) -> Plain | None:
        """A segment without what its window cut off a character at either end."""
        first = _fewest(lambda n: not self._decoded([segment[n:]])[0].startswith(REPLACEMENT))
        rest = segment[first:]
        last = _fewest(lambda n: not self._decoded([rest[: len(rest) - n]])[0].endswith(REPLACEMENT))
        body, tail = rest[: len(rest) - last], rest[len(rest) - last :]
        (text,) = self._decoded([body])
        if REPLACEMENT in text and self._tokenizer.encode(text, add_special_tokens=False).ids != body:
            return None  # it may stand for other bytes
        return Plain(segment[:first], text, tail)

    def _decoded(self, segments: Sequence[Ids]) -> list[str]:
        texts: list[str] = self._tokenizer.decode_batch(segments, skip_special_tokens=False)
        return texts


def _fewest(enough: Callable[[int], bool]) -> int:
    """The smallest number of stray tokens that is enough; 0 if none is."""
    return next((n for n in range(STRAY + 1) if enough(n)), 0)
