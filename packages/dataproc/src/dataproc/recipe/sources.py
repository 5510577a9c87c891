"""Where text comes from, and what happens to a record before it is a document."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from manifest.fields import RecipeModel

UNREADABLE_SHARE = 0.01
TEXT = "text"


class Clean(RecipeModel):
    """What happens to a record before it is a document. min_chars counts the characters of `clean(text)`."""

    ftfy: bool = True
    min_chars: int = Field(200, ge=0)
    filters: tuple[str, ...] = ()
    max_unreadable: float = Field(UNREADABLE_SHARE, ge=0, le=1)

    @field_validator("filters")
    @classmethod
    def _no_filters_yet(cls, filters: tuple[str, ...]) -> tuple[str, ...]:
        if filters:
            raise ValueError("this version has no quality filters; leave the list empty")
        return filters


class Source(RecipeModel):
    """One source. `files` is a glob (or several) relative to --raw, in which `*` stays within a directory and `**`
    goes into those below. Any `clean` key may be overridden here.

    Instead of `text`, where only answers are learned: `prompt` (a field, or several that are joined) and `answer`; or
    `messages`, a field with a list of {role, content}. Or `speakers` beside `text`: what begins a line of the text at
    which the user or the assistant begins to speak.
    """

    files: tuple[str, ...] = Field(min_length=1)
    text: str = TEXT
    prompt: tuple[str, ...] = ()
    answer: str | None = None
    messages: str | None = None
    speakers: dict[Literal["user", "assistant"], str] = {}
    id: str | None = None
    ftfy: bool | None = None
    min_chars: int | None = Field(None, ge=0)
    max_unreadable: float | None = Field(None, ge=0, le=1)

    @field_validator("files", "prompt", mode="before")
    @classmethod
    def _one_or_many(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value

    @field_validator("files")
    @classmethod
    def _below_raw(cls, files: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in files:
            if pattern.startswith("/") or ".." in pattern.split("/") or "://" in pattern:
                raise ValueError(f"{pattern!r} is not below --raw; write it relative to --raw, without '..'")
        return tuple(str(PurePosixPath(pattern)) for pattern in files)

    @model_validator(mode="after")
    def _text_or_answers(self) -> Self:
        if bool(self.prompt) != (self.answer is not None):
            found, missing = ("prompt", "answer") if self.prompt else ("answer", "prompt")
            raise ValueError(f"{found!r} is there and {missing!r} is not; name the fields of both")
        ways = {"'prompt' and 'answer'": self.answer, "'messages'": self.messages, "'speakers'": self.speakers}
        given = [name for name, value in ways.items() if value]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} each say what is learned; keep one")
        if given and not self.speakers and self.text != TEXT:
            raise ValueError(f"'text' and {given[0]} each say what a document holds; keep one")
        if len(set(self.fields)) < len(self.fields):
            raise ValueError(f"the fields {', '.join(self.fields)} must differ")
        self._check_speakers()
        return self

    def _check_speakers(self) -> None:
        marks = list(self.speakers.values())
        if marks and (len(marks) < 2 or not all(mark.strip() for mark in marks) or marks[0] == marks[1]):
            raise ValueError(
                f"speakers is {self.speakers}; expected what begins the lines of both, such as {{user: 'Question: ', "
                "assistant: 'Answer: '}"
            )

    @property
    def answers(self) -> dict[str, Any]:
        """Where the answers are, as the recipe says it; nothing if all of a document is learned."""
        return self.model_dump(mode="json", include={"prompt", "answer", "messages", "speakers"}, exclude_defaults=True)

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields of a record that become the document's text."""
        if self.answer is not None:
            return (self.answer, *self.prompt)
        return (self.messages or self.text,)

    def cleaning(self, default: Clean) -> Clean:
        """The clean keys of this source over the recipe's. Where there are answers, min_chars is 0 unless the source
        itself has one: most answers are shorter than the pages for which the recipe's is meant.
        """
        min_chars = 0 if self.min_chars is None and self.answers else self.min_chars
        own = {"ftfy": self.ftfy, "min_chars": min_chars, "max_unreadable": self.max_unreadable}
        return default.model_copy(update={key: value for key, value in own.items() if value is not None})
