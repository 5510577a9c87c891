"""Every template writes what its model was trained on, character by character."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from dataproc.templates import TEMPLATES, Template, render
from dataproc.turns import Turn

PAIR = [Turn("user", "Why?"), Turn("assistant", "So.")]
CHAT = [Turn("system", "Be brief."), *PAIR, Turn("user", "And?"), Turn("assistant", "No.")]

MED42 = """<|system|>: You are a helpful medical assistant created by M42 Health in the UAE.
<|prompter|>:Why?
<|assistant|>:"""
ALPACA = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\nWhy?\n\n### Response:"
)

ONE = {
    "med42": (MED42, "So.{end}"),
    "chatml": ("<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n", "So.<|im_end|>"),
    "llama2": ("{start}[INST] Why? [/INST]", " So. {end}"),
    "alpaca": (ALPACA, "So.{end}"),
    "zephyr": ("<|user|>\nWhy?{end}\n<|assistant|>\n", "So.{end}"),
    "plain": ("Why?\n\n", "So.{end}"),
}

LONG = {
    "med42": (
        ("<|system|>: Be brief.\n<|prompter|>:Why?\n<|assistant|>:", "So.{end}"),
        ("\n<|prompter|>:And?\n<|assistant|>:", "No.{end}"),
    ),
    "chatml": (
        (
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n",
            "So.<|im_end|>",
        ),
        ("\n<|im_start|>user\nAnd?<|im_end|>\n<|im_start|>assistant\n", "No.<|im_end|>"),
    ),
    "llama2": (
        ("{start}[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nWhy? [/INST]", " So. {end}"),
        ("{start}[INST] And? [/INST]", " No. {end}"),
    ),
    "alpaca": (
        ("Be brief.\n\n### Instruction:\nWhy?\n\n### Response:", "So.{end}"),
        ("\n\n### Instruction:\nAnd?\n\n### Response:", "No.{end}"),
    ),
    "zephyr": (
        ("<|system|>\nBe brief.{end}\n<|user|>\nWhy?{end}\n<|assistant|>\n", "So.{end}"),
        ("\n<|user|>\nAnd?{end}\n<|assistant|>\n", "No.{end}"),
    ),
    "plain": (("Be brief.\n\nWhy?\n\n", "So.{end}"), ("\n\nAnd?\n\n", "No.{end}")),
}


def written(template: Template, turns: list[Turn]) -> tuple[tuple[str, str], ...]:
    """(what is not learned, what is) of each answer."""
    parts: list[list[str]] = []
    before = True
    for text, _, learned in render(template, turns):
        if before and not learned:
            parts.append(["", ""])
        parts[-1][learned] += text
        before = learned
    return tuple((prompt, answer) for prompt, answer in parts)


def test_every_template_is_tested() -> None:
    assert set(ONE) == set(LONG) == set(TEMPLATES)


@pytest.mark.parametrize("name", ONE)
def test_one_prompt_and_its_answer(name: str) -> None:
    assert written(TEMPLATES[name], PAIR) == (ONE[name],)


@pytest.mark.parametrize("name", LONG)
def test_a_dialogue_with_a_system_turn(name: str) -> None:
    assert written(TEMPLATES[name], CHAT) == LONG[name]


def test_only_llama_2_strips_what_is_said() -> None:
    spaced = [Turn("user", " Why?\n"), Turn("assistant", "\tSo. ")]
    for name, template in TEMPLATES.items():
        ((prompt, answer),) = written(template, spaced)
        assert (" Why?\n" in prompt, "\tSo. " in answer) == (name != "llama2",) * 2
    assert written(TEMPLATES["llama2"], spaced) == (ONE["llama2"],)


def test_places_in_what_is_said_are_text() -> None:
    said = [Turn("user", "{answer}{end}{prompt}"), Turn("assistant", "{start}{system}")]
    pieces = list(render(TEMPLATES["plain"], said))
    assert [(piece.text, piece.kind) for piece in pieces] == [
        ("{answer}{end}{prompt}", "said"),
        ("\n\n", "written"),
        ("{start}{system}", "said"),
        ("{end}", "end"),
    ]


def test_other_braces_of_a_template_are_text() -> None:
    own = Template(prompt='{"q": "{prompt}", "a": "', answer='{answer}"}')
    assert written(own, PAIR) == (('{"q": "Why?", "a": "', 'So."}'),)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"prompt": "Q: {question}"}, r"prompt is 'Q: {question}'; expected {prompt} once"),
        ({"prompt": "{prompt}{prompt}"}, r"expected {prompt} once"),
        ({"prompt": "{prompt}{answer}"}, r"expected {prompt} once"),
        ({"prompt": "{prompt}", "answer": "A: "}, r"answer is 'A: '; expected {answer} once"),
        ({"prompt": "{prompt}", "system": "Hello"}, r"system is 'Hello'; expected {system} once"),
        ({"prompt": "{prompt}", "between": "{prompt}"}, r"between is '{prompt}'; expected no place but"),
    ],
)
def test_a_template_without_its_places_is_an_error(fields: dict[str, str], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Template.model_validate(fields)
