"""How a prompt and its answer, or a dialogue, are written for a model: text before an answer, answer, text, answer, …

A template is a few strings with places in braces:

    opens system prompt | answer | between opens prompt | answer | …        | is where learning begins or stops

`{start}` and `{end}` are the tokenizer's tokens that begin a text (left out where it has none) and end one. Whatever
else in a template is a special token of the tokenizer is that token, as it is when a chat is rendered for inference;
what users and assistants say is never taken for one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple, Self

from pydantic import model_validator

from manifest.fields import RecipeModel

if TYPE_CHECKING:  # pyarrow comes with it, which a recipe has no use for
    from dataproc.turns import Turn

Kind = Literal["said", "written", "start", "end"]
PLACES = ("system", "prompt", "answer", "start", "end")
LONG_PROMPT = 2048
"""Tokens. A prompt of more leaves no room for its answer in the shortest windows that are usual."""
_PLACE = re.compile("{(" + "|".join(PLACES) + ")}")


class Piece(NamedTuple):
    """A part of a rendered document: what was said, what the template writes, or one of its two tokens."""

    text: str
    kind: Kind
    learned: bool


class Template(RecipeModel):
    """opens: before every prompt, and before the system turn. default_system: what the system says if a dialogue does
    not; if there is none either, `system` is left out. between: what follows an answer if there is another prompt.
    strip: whether white space around what is said goes.
    """

    system: str = "{system}\n\n"
    prompt: str
    answer: str = "{answer}{end}"
    between: str = "\n\n"
    opens: str = ""
    default_system: str | None = None
    strip: bool = False

    @model_validator(mode="after")
    def _has_its_places(self) -> Self:
        own = {"system": "system", "prompt": "prompt", "answer": "answer", "between": None, "opens": None}
        for part, place in own.items():
            text = getattr(self, part)
            found = [name for name in _PLACE.findall(text) if name not in ("start", "end")]
            if found != ([place] if place else []):
                expected = f"{{{place}}} once" if place else "no place but {start} and {end}"
                raise ValueError(f"{part} is {text!r}; expected {expected}, where what is said goes")
        return self


MED42 = Template(
    system="<|system|>: {system}\n",
    prompt="<|prompter|>:{prompt}\n<|assistant|>:",
    between="\n",
    default_system="You are a helpful medical assistant created by M42 Health in the UAE.",
)
"""The model card of m42-health/med42-70b, to the letter; the answer follows the last colon. None of it is a special
token there."""

CHATML = Template(
    system="<|im_start|>system\n{system}<|im_end|>\n",
    prompt="<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n",
    answer="{answer}<|im_end|>",
    between="\n",
)
"""OpenAI's Chat Markup Language (chatml.md in openai/openai-python 0.28), as in the tokenizers of SmolLM-Instruct and
Qwen1.5-Chat. The latter write a system turn where there is none; this does not."""

LLAMA2 = Template(
    opens="{start}[INST] ",
    system="<<SYS>>\n{system}\n<</SYS>>\n\n",
    prompt="{prompt} [/INST]",
    answer=" {answer} {end}",
    between="",
    strip=True,
)
"""Meta's generation.py (facebookresearch/llama) and the template of Llama-2-chat's tokenizer."""

ALPACA = Template(
    prompt="### Instruction:\n{prompt}\n\n### Response:",
    default_system=(
        "Below is an instruction that describes a task. Write a response that appropriately completes the request."
    ),
)
"""`prompt_no_input` of train.py in tatsu-lab/stanford_alpaca, where the answer follows the colon. Its `input` is a part
of the prompt here: `prompt: [instruction, input]` in the source."""

ZEPHYR = Template(
    system="<|system|>\n{system}{end}\n",
    prompt="<|user|>\n{prompt}{end}\n<|assistant|>\n",
    between="\n",
)
"""The template of zephyr-7b-beta's tokenizer."""

PLAIN = Template(prompt="{prompt}\n\n")
"""The text of the document as it is."""

TEMPLATES = {"alpaca": ALPACA, "chatml": CHATML, "llama2": LLAMA2, "med42": MED42, "plain": PLAIN, "zephyr": ZEPHYR}


def render(template: Template, turns: Sequence[Turn]) -> Iterator[Piece]:
    """A dialogue as its template writes it. It may begin with a system turn; then prompts and answers alternate."""
    system = template.default_system
    if turns[0].role == "system":
        system, turns = turns[0].text, turns[1:]
    for number, turn in enumerate(turns):
        if turn.role == "assistant":
            yield from _pieces(template, template.answer, turn.text, learned=True)
            continue
        yield from _pieces(template, (template.between if number else "") + template.opens)
        if number == 0 and system is not None:
            yield from _pieces(template, template.system, system)
        yield from _pieces(template, template.prompt, turn.text)


def _pieces(template: Template, text: str, said: str = "", *, learned: bool = False) -> Iterator[Piece]:
    for number, part in enumerate(_PLACE.split(text)):
        if number % 2 == 0:
            if part:
                yield Piece(part, "written", learned)
        elif part == "start":
            yield Piece("{start}", "start", learned)
        elif part == "end":
            yield Piece("{end}", "end", learned)
        else:
            yield Piece(said.strip() if template.strip else said, "said", learned)
