"""Which tokens a base can spare: the least used of those that no other token is made from, one after the other.

The use of a token that goes is that of its two parts from then on, so a part that is spared next counts it too.
"""

from __future__ import annotations

import copy
import heapq
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dataproc.vocab.base import Base
from manifest.errors import RecipeError


@dataclass(frozen=True)
class Spared:
    """The base without what it spares: its tokenizer.json. ids: in the order in which they went. uses: of each in the
    sample, which has `total` tokens.
    """

    content: dict[str, Any]
    ids: tuple[int, ...]
    uses: Mapping[int, int]
    total: int

    @property
    def share(self) -> float:
        """The share of the sample's tokens that were spared ones."""
        return sum(self.uses[number] for number in self.ids) / max(self.total, 1)


def spare(base: Base, usage: Mapping[int, int], count: int) -> Spared:
    """Spares `count` tokens. usage: how often the sample uses each. Raises RecipeError if there are fewer to spare."""
    vocab: dict[str, int] = base.content["model"]["vocab"]
    makes, parts_of, needed = _merges(base)
    now = Counter({number: usage.get(number, 0) for number in vocab.values()})
    ready = [(now[n], -n) for n in parts_of if not needed[n] and n not in base.added]
    heapq.heapify(ready)
    gone: list[int] = []
    while len(gone) < count and ready:
        uses, negative = heapq.heappop(ready)
        number = -negative
        if uses != now[number]:
            heapq.heappush(ready, (now[number], negative))
            continue
        gone.append(number)
        for part in parts_of[number][0]:
            now[part] += uses
        for pair in parts_of[number]:
            for part in set(pair):
                needed[part] -= 1
                if not needed[part] and part in parts_of and part not in base.added:
                    heapq.heappush(ready, (now[part], -part))
    if len(gone) < count:
        raise RecipeError(
            f"tokenizer.replace.add: {count:,} tokens were to be replaced, and the base has {len(gone):,} that "
            "merges make; ask for fewer, or use extend"
        )
    content = copy.deepcopy(base.content)
    dropped = set(gone)
    added = {token["content"]: token["id"] for token in content["added_tokens"]}  # the model knows them: see writing.py
    content["model"]["vocab"] = {token: number for token, number in vocab.items() if number not in dropped} | added
    content["model"]["merges"] = [
        merge for merge, made in zip(content["model"]["merges"], makes, strict=True) if made not in dropped
    ]
    return Spared(content, tuple(gone), {n: usage.get(n, 0) for n in gone}, sum(usage.values()))


def _merges(base: Base) -> tuple[list[int], dict[int, list[tuple[int, int]]], Counter[int]]:
    """What each merge makes; the pairs that make each token; in how many merges each token is a part."""
    vocab: dict[str, int] = base.content["model"]["vocab"]
    makes: list[int] = []
    parts_of: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
    needed: Counter[int] = Counter()
    for left, right in base.content["model"]["merges"]:
        number, pair = vocab[left + right], (vocab[left], vocab[right])
        makes.append(number)
        parts_of[number].append(pair)
        needed.update(set(pair))
    return makes, dict(parts_of), needed
