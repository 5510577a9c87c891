"""Who speaks where in a document's text: a prompt and its answer, or the turns of a dialogue.

The text is the turns, end to end with JOINER between them, each repaired for itself. What else a document then has:

    loss_from   of a source with a prompt and an answer: where the answer begins
    turns       of a source with dialogues: JSON [[role, where the turn begins], …]

Places are in characters (code points) of the text.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

JOINER = "\n\n"
Role = Literal["system", "user", "assistant"]
PAIR: tuple[Role, ...] = ("user", "assistant")


class Turn(NamedTuple):
    """What someone says. What the assistant says is learned."""

    role: Role
    text: str


def joined(texts: pa.LargeStringArray, roles: Sequence[Sequence[Role]]) -> tuple[pa.LargeStringArray, list[list[int]]]:
    """Turns of all documents, end to end → the documents' texts, and where the turns of each begin."""
    said = iter(texts.to_pylist())
    found: list[str] = []
    starts: list[list[int]] = []
    for document in roles:
        parts = [next(said) for _ in document]
        found.append(JOINER.join(parts))
        starts.append([0, *np.cumsum([len(part) + len(JOINER) for part in parts[:-1]]).tolist()])
    return pa.array(found, pa.large_string()), starts


def all_answered(texts: pa.LargeStringArray, roles: Sequence[Sequence[Role]]) -> NDArray[np.bool_]:
    """Whether no answer of a document is blank."""
    spoken = [role for document in roles for role in document]
    blank = [not said.strip() and role == "assistant" for said, role in zip(texts.to_pylist(), spoken, strict=True)]
    document = np.repeat(np.arange(len(roles)), [len(said) for said in roles])
    answered = np.ones(len(roles), np.bool_)
    answered[document[np.array(blank, np.bool_)]] = False
    return answered


def loss_from(starts: Sequence[Sequence[int]]) -> pa.Array:
    """The column of documents with one answer."""
    return pa.array([places[-1] for places in starts], pa.int64())


def turns(starts: Sequence[Sequence[int]], roles: Sequence[Sequence[Role]]) -> pa.Array:
    """The column of documents that are dialogues."""
    rows = [list(zip(said, places, strict=True)) for said, places in zip(roles, starts, strict=True)]
    return pa.array([json.dumps(row, separators=(",", ":")) for row in rows], pa.string())


def dialogues(batch: pa.RecordBatch) -> Iterator[list[Turn]]:
    """The turns of every row of a batch with text and `loss_from` or `turns`."""
    texts = batch["text"].to_pylist()
    if "loss_from" in batch.schema.names:
        for text, place in zip(texts, batch["loss_from"].to_pylist(), strict=True):
            yield _cut(text, PAIR, (0, place))
    else:
        for text, row in zip(texts, batch["turns"].to_pylist(), strict=True):
            roles, places = zip(*json.loads(row), strict=True)
            yield _cut(text, roles, places)


def _cut(text: str, roles: Sequence[Role], starts: Sequence[int]) -> list[Turn]:
    bounds = pairwise([*starts, len(text) + len(JOINER)])
    return [Turn(role, text[start : end - len(JOINER)]) for role, (start, end) in zip(roles, bounds, strict=True)]
