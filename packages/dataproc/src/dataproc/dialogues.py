"""Records with answers → rows: the turns of each record, its id and its metadata; what has no answer is set apart.

A source names `prompt` and `answer`, or `messages` (a list of {role, content}), or `speakers` (what begins a line of
the text at which someone begins to speak). A dialogue may begin with a system turn; then user and assistant alternate.
What comes after the last answer is left out: nothing is learned from it.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import pyarrow as pa

from dataproc import raw
from dataproc.raw import RawFile, Unreadable
from dataproc.recipe.sources import Source
from dataproc.rows import ROW_BYTES, RecordError, Rows, record_id, record_meta, record_text
from dataproc.turns import JOINER, PAIR, Role, Turn

UNANSWERED = "it has no answer, and so nothing to learn"


class UnansweredError(RecordError):
    """A record is as it should be, but nothing in it is an answer."""

    def __init__(self, found: str) -> None:
        super().__init__(f"{found}: {UNANSWERED}")


def rows(file: RawFile, name: str, source: Source, size: int) -> Iterator[Rows]:
    """The records of a file of a source with answers, some `size` bytes at a time. Raises as `raw.records`."""
    gathered = _Gathered(file, name, source)
    for line, record in raw.records(file):
        gathered.add(line, record)
        if gathered.bytes >= size:
            yield gathered.rows()
            gathered = _Gathered(file, name, source)
    yield gathered.rows()


@dataclass
class _Gathered:
    """Rows in the making, and about how many bytes they take."""

    file: RawFile
    name: str
    source: Source
    turns: list[list[Turn]] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    metas: list[bytes] = field(default_factory=list)
    bad: list[Unreadable] = field(default_factory=list)
    unanswered: int = 0
    bytes: int = 0

    def add(self, line: int, record: dict[str, Any] | Unreadable) -> None:
        self.bytes += ROW_BYTES
        if isinstance(record, Unreadable):
            self.bad.append(record)
            return
        try:
            self._add(record)
        except RecordError as error:
            excerpt = reprlib.repr(record)
            self.bad.append(Unreadable(file=self.file.path, line=line, reason=str(error), excerpt=excerpt))
            self.unanswered += isinstance(error, UnansweredError)

    def _add(self, record: dict[str, Any]) -> None:
        identifier = "" if self.source.id is None else f"{self.name}/{record_id(record, self.source.id)}"
        found = turns_of(record, self.source)
        first, *others = self.source.fields
        meta = record_meta({key: value for key, value in record.items() if key not in others}, first, self.source.id)
        self.turns.append(found)
        self.ids.append(identifier)
        self.metas.append(meta)
        self.bytes += sum(len(turn.text) for turn in found) + len(meta)

    def rows(self) -> Rows:
        texts = pa.array([turn.text for turns in self.turns for turn in turns], pa.large_string())
        roles = [tuple(turn.role for turn in turns) for turns in self.turns]
        return Rows(texts, self.ids, self.metas, self.bad, roles, self.unanswered)


def turns_of(record: Mapping[str, Any], source: Source) -> list[Turn]:
    """The turns of a record. Raises RecordError: no such fields, or another order of speakers; UnansweredError."""
    if source.answer is not None:
        return _pair(record, source.prompt, source.answer)
    if source.messages is not None:
        return _dialogue(_messages(record, source.messages))
    return _dialogue(_spoken(record_text(record, source.text), source.speakers))


def _pair(record: Mapping[str, Any], prompt: Sequence[str], answer: str) -> list[Turn]:
    parts = [record_text(record, name) for name in prompt]
    asked = JOINER.join(part for part in parts if part.strip())
    if not asked:
        raise RecordError(f"nothing but white space in field {' and '.join(map(repr, prompt))}; expected a prompt")
    if record.get(answer, "") is None:
        raise UnansweredError(f"field {answer!r} is null")
    found = record_text(record, answer)
    if not found.strip():
        raise UnansweredError(f"field {answer!r} is blank")
    return [Turn("user", asked), Turn("assistant", found)]


def _messages(record: Mapping[str, Any], name: str) -> Iterator[Turn]:
    found = record.get(name)
    if not isinstance(found, list):
        what = f"is {type(found).__name__}" if name in record else f"is missing (fields: {', '.join(record)})"
        raise RecordError(f"field {name!r} {what}; expected a list of {{role, content}}")
    for number, message in enumerate(found, 1):
        where = f"message {number} of field {name!r}"
        if not isinstance(message, dict) or not isinstance(message.get("content"), str):
            raise RecordError(f"{where} is {reprlib.repr(message)}; expected {{role, content}}, the content a string")
        if message.get("role") not in get_args(Role):
            known = ", ".join(get_args(Role))
            raise RecordError(f"{where} has role {message.get('role')!r}; expected one of {known}")
        yield Turn(message["role"], message["content"])


def _spoken(text: str, speakers: Mapping[Literal["user", "assistant"], str]) -> Iterator[Turn]:
    """What is said in a text, without what begins the lines. What comes before belongs to the first turn."""
    by_mark: dict[str, Role] = {mark: role for role, mark in speakers.items()}
    marks = "|".join(re.escape(mark) for mark in sorted(by_mark, key=len, reverse=True))
    before, *rest = re.split(f"^({marks})", text, flags=re.MULTILINE)
    for mark, said in zip(rest[::2], rest[1::2], strict=True):
        parts = (before.strip(), said.strip())
        yield Turn(by_mark[mark], JOINER.join(part for part in parts if part))
        before = ""


def _dialogue(turns: Iterator[Turn]) -> list[Turn]:
    """The turns up to the last answer, if they are a dialogue."""
    found = list(turns)
    last = max((number for number, turn in enumerate(found) if turn.role == "assistant"), default=-1)
    if last < 0:
        raise UnansweredError(f"none of its {len(found)} turns is the assistant's")
    found = found[: last + 1]
    first = int(found[0].role == "system")
    for number, turn in enumerate(found):
        expected = PAIR[(number - first) % 2] if number >= first else "system"
        if turn.role != expected:
            raise RecordError(f"turn {number + 1} is of {turn.role}; expected {expected}: user and assistant alternate")
        if not turn.text.strip():
            if turn.role == "assistant":
                raise UnansweredError(f"turn {number + 1}, of assistant, is blank")
            raise RecordError(f"turn {number + 1}, of {turn.role}, is blank")
    return found
