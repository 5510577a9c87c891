"""Records with answers become documents that know where their answers are; what has none is set aside and counted."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ftfy
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataproc import normalize, turns
from dataproc.dialogues import turns_of
from dataproc.estimate import estimate
from dataproc.recipe.sources import Clean, Source
from dataproc.rows import Rows
from dataproc.turns import Turn
from manifest.errors import DataError

Make = Callable[..., Any]
QA = {"prompt": "question", "answer": "answer"}
CHAT = {"messages": "messages"}


@pytest.fixture
def documents(tmp_path: Path, write_jsonl: Make, recipe: Make, build: Make) -> Make:
    """Records of a source `a` → a build up to its documents."""

    def run(records: list[dict[str, Any]], clean: dict[str, Any] | None = None, **source: Any) -> Any:
        write_jsonl(tmp_path / "raw" / "a" / "x.jsonl", records)
        made = recipe(sources={"a": {"files": "a/*", **source}}, clean=clean or {})
        return build(made, tmp_path / "raw", tmp_path / "store", until="documents")

    return run


def message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def chat(*said: str, system: str | None = None) -> list[dict[str, str]]:
    first = [] if system is None else [message("system", system)]
    return [*first, *(message(("user", "assistant")[n % 2], text) for n, text in enumerate(said))]


# ---- what becomes a document


def test_a_document_is_prompt_and_answer_and_knows_where_the_answer_begins(documents: Make) -> None:
    (row,) = documents([{"question": "Why? 🙂", "answer": "So.", "id": 7, "topic": "x"}], id="id", **QA).rows(
        "documents", "a"
    )
    assert row == {
        "id": "a/7",
        "text": "Why? 🙂\n\nSo.",
        "source": "a",
        "meta": '{"topic":"x"}',
        "loss_from": len("Why? 🙂\n\n"),
    }


def test_several_fields_make_a_prompt_and_blank_ones_are_left_out(documents: Make) -> None:
    records = [{"q": "Sum", "input": "1 2", "answer": "3"}, {"q": "Hi", "input": " ", "answer": "Ho"}]
    rows = documents(records, prompt=["q", "input"], answer="answer").rows("documents", "a")
    assert [(row["text"], row["loss_from"], row["meta"]) for row in rows] == [
        ("Sum\n\n1 2\n\n3", 10, "{}"),
        ("Hi\n\nHo", 4, "{}"),
    ]


def test_prompt_and_answer_are_repaired_apart_and_the_place_is_of_the_repaired_text(documents: Make) -> None:
    prompt, answer = "It&#39;s â€œquotedâ€\x9d\r\n\x00", "\u0301e\u0301 &amp; so\r\n"
    (row,) = documents([{"question": prompt, "answer": answer}], **QA).rows("documents", "a")
    first, second = (ftfy.fix_text(text, normalization="NFC") for text in (prompt, answer))
    assert len(first) < len(prompt)
    assert row["text"] == f"{first}\n\n{second}"
    assert row["text"][row["loss_from"] :] == second


def test_messages_keep_their_turns_up_to_the_last_answer(documents: Make) -> None:
    said = chat("Why?", "So.\n\nReally.", "And?", "Nothing 🙂.", "Bye", system="Be brief.")
    (row,) = documents([{"messages": said, "n": 1}], **CHAT).rows("documents", "a")
    assert row["text"] == "Be brief.\n\nWhy?\n\nSo.\n\nReally.\n\nAnd?\n\nNothing 🙂."
    assert row["meta"] == '{"n":1}'
    assert [(role, row["text"][start:][:3]) for role, start in json.loads(row["turns"])] == [
        ("system", "Be "),
        ("user", "Why"),
        ("assistant", "So."),
        ("user", "And"),
        ("assistant", "Not"),
    ]


def test_speakers_cut_a_text_into_its_turns() -> None:
    source = Source(files=("a",), speakers={"user": "Question: ", "assistant": "Answer:"})
    text = "Flu\n\nQuestion: What is flu?\nAnswer: An Answer: in it.\n  two\n\nQuestion: Why?\nAnswer: So.\n"
    assert turns_of({"text": text}, source) == [
        Turn("user", "Flu\n\nWhat is flu?"),
        Turn("assistant", "An Answer: in it.\n  two"),
        Turn("user", "Why?"),
        Turn("assistant", "So."),
    ]


def test_short_answers_stay_unless_the_source_itself_has_a_filter(documents: Make, tmp_path: Path) -> None:
    record = {"question": "Why?", "answer": "So."}
    assert documents([record], clean={"min_chars": 200}, **QA).artifact("documents", "a").manifest.summary["short"] == 0
    built = documents([record], clean={"min_chars": 200}, min_chars=20, **QA)
    assert built.artifact("documents", "a").manifest.summary["short"] == 1


TEXTS = st.text(st.sampled_from("ab é漢🙂\n\r\x00&#39;â€™ \t"), max_size=12)


@given(st.lists(st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=3), max_size=4), st.booleans())
def test_turns_come_back_as_each_is_repaired(dialogues: list[list[tuple[str, str]]], fixes: bool) -> None:
    source = Source(files=("a",), messages="messages")
    said = [[text for pair in dialogue for text in pair] for dialogue in dialogues]
    roles = [turns.PAIR * len(dialogue) for dialogue in dialogues]
    texts = pa.array([text for dialogue in said for text in dialogue], pa.large_string())
    batch = Rows(texts, [""] * len(said), [b"{}"] * len(said), [], roles)
    table = normalize.documents_of(batch, "a", source, Clean(ftfy=fixes, min_chars=0))
    found = [[turn.text for turn in dialogue] for part in table.to_batches() for dialogue in turns.dialogues(part)]
    repaired = [[ftfy.fix_text(text, normalization="NFC") if fixes else text for text in one] for one in said]
    assert found == [one for one in repaired if all(answer.strip() for answer in one[1::2])]


# ---- what is set aside

MISSING = "it has no answer, and so nothing to learn"
UNANSWERED: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    (QA, {"question": "Why?", "answer": ""}, f"field 'answer' is blank: {MISSING}"),
    (QA, {"question": "Why?", "answer": " \n"}, f"field 'answer' is blank: {MISSING}"),
    (QA, {"question": "Why?", "answer": None}, f"field 'answer' is null: {MISSING}"),
    (CHAT, {"messages": []}, f"none of its 0 turns is the assistant's: {MISSING}"),
    (CHAT, {"messages": chat("Why?")}, f"none of its 1 turns is the assistant's: {MISSING}"),
    (CHAT, {"messages": chat("Why?", " ", "And?", "So.")}, f"turn 2, of assistant, is blank: {MISSING}"),
    ({"speakers": {"user": "Q: ", "assistant": "A: "}}, {"text": "no one speaks"}, "none of its 0 turns is the"),
]
UNREADABLE: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    (QA, {"question": "Why?"}, "field 'answer' is missing (fields: question)"),
    (QA, {"answer": "So."}, "field 'question' is missing (fields: answer)"),
    (QA, {"question": 1, "answer": "So."}, "field 'question' is int; expected a string"),
    (QA, {"question": "", "answer": "So."}, "nothing but white space in field 'question'; expected a prompt"),
    (CHAT, {"text": "x"}, "field 'messages' is missing (fields: text); expected a list of {role, content}"),
    (CHAT, {"messages": "x"}, "field 'messages' is str; expected a list"),
    (CHAT, {"messages": ["x"]}, "message 1 of field 'messages' is 'x'; expected {role, content}"),
    (CHAT, {"messages": [{"role": "user"}]}, "message 1 of field 'messages' is {'role': 'user'}; expected"),
    (CHAT, {"messages": [message("gpt", "x")]}, "message 1 of field 'messages' has role 'gpt'; expected one of system"),
    (CHAT, {"messages": chat("a", "b")[1:]}, "turn 1 is of assistant; expected user"),
    (CHAT, {"messages": chat("a", "b") + chat("c", "d")[1:]}, "turn 3 is of assistant; expected user"),
    (CHAT, {"messages": [*chat("a"), message("system", "b"), *chat("", "d")[1:]]}, "turn 2 is of system; expected"),
    (CHAT, {"messages": chat(" ", "b")}, "turn 1, of user, is blank"),
]


@pytest.mark.parametrize(("source", "record", "reason"), [*UNANSWERED, *UNREADABLE])
def test_a_record_without_an_answer_is_set_aside(
    documents: Make, source: dict[str, Any], record: dict[str, Any], reason: str
) -> None:
    good = {"question": "Why?", "answer": "So.", "messages": chat("Why?", "So."), "text": "Q: Why?\nA: So."}
    built = documents([good, record], clean={"max_unreadable": 0.5}, **source)
    (row,) = built.rows("documents", "a", "quarantine")
    assert (row["file"], row["line"]) == ("a/x.jsonl", 2)
    assert row["reason"].startswith(reason)
    summary = built.artifact("documents", "a").manifest.summary
    unanswered = int((source, record, reason) in UNANSWERED)
    assert (summary["records"], summary["unanswered"], summary["unreadable"]) == (2, unanswered, 1 - unanswered)


def test_an_answer_of_which_repair_leaves_nothing_is_dropped_as_short(documents: Make) -> None:
    built = documents([{"question": "Why?", "answer": "\x00"}, {"question": "Why?", "answer": "So."}], **QA)
    assert [row["text"] for row in built.rows("documents", "a")] == ["Why?\n\nSo."]
    assert built.artifact("documents", "a").manifest.summary["short"] == 1


def test_too_many_records_without_an_answer_stop_the_build(documents: Make) -> None:
    with pytest.raises(DataError, match=r"(?s)1 of 2 records cannot be used.*a/x\.jsonl:2: field 'answer' is blank"):
        documents([{"question": "Why?", "answer": "So."}, {"question": "Why?", "answer": ""}], **QA)


def test_batches_are_no_part_of_what_comes_out(
    documents: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    records = [{"question": f"Why {n}?", "answer": "So." * (n % 7)} for n in range(50)]
    whole = documents(records, clean={"max_unreadable": 1}, **QA)
    assert whole.artifact("documents", "a").manifest.summary["unanswered"] == 8
    monkeypatch.setattr(normalize, "BATCH_BYTES", 1)
    (tmp_path / "store").rename(tmp_path / "first")
    assert documents(records, clean={"max_unreadable": 1}, **QA).id == whole.id


def test_an_estimate_counts_what_has_an_answer(tmp_path: Path, write_jsonl: Make, recipe: Make) -> None:
    records = [{"question": "Why?", "answer": "So."}, {"question": "Why?", "answer": " "}]
    write_jsonl(tmp_path / "a" / "x.jsonl", records)
    found = estimate(recipe(sources={"a": {"files": "a/*", **QA}}), str(tmp_path))
    assert (found.sources["a"].documents, found.sources["a"].texts) == (1, ("Why?\n\nSo.",))
    assert found.warnings[0].startswith(
        "1 of 2 records read of source 'a' have no prompt and answer under 'answer' and"
    )


def test_messages_are_read_from_parquet(tmp_path: Path, recipe: Make, build: Make) -> None:
    (tmp_path / "raw" / "a").mkdir(parents=True)
    pq.write_table(pa.table({"messages": [chat("Why?", "So.")], "n": [1]}), tmp_path / "raw" / "a" / "x.parquet")
    made = recipe(sources={"a": {"files": "a/*", **CHAT}})
    (row,) = build(made, tmp_path / "raw", tmp_path / "store", until="documents").rows("documents", "a")
    assert (row["text"], row["meta"], row["turns"]) == ("Why?\n\nSo.", '{"n":1}', '[["user",0],["assistant",6]]')
