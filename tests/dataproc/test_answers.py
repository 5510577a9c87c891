"""Streams of sources with answers: prompt and answer are encoded apart, and the answer is learned with its end."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml
from pydantic import ValidationError
from tokenizers import AddedToken, Tokenizer

from dataproc import answers, tokenize
from dataproc.dedup.stones import Stones
from dataproc.report import answer_lines
from dataproc.templates import LONG_PROMPT, TEMPLATES, Template, render
from dataproc.turns import Turn
from dataproc.vocab.files import end_of_text
from dataproc.workers import Serial, Workers
from manifest.artifact import open_streams, verify
from manifest.corpus import TokenStream

Make = Callable[..., Any]
QA = {"files": "qa/*", "prompt": "question", "answer": "answer", "id": "id"}
CHATS = {"files": "chats/*", "messages": "messages", "id": "id"}
PLAIN = {"files": "a/*", "id": "id"}

SPELLED = {  # what each template makes of a prompt and an answer, its tokens apart
    "med42": (
        "<|system|>: You are a helpful medical assistant created by M42 Health in the UAE.\n"
        "<|prompter|>:{p}\n<|assistant|>:",
        "{a}",
    ),
    "chatml": ("<|im_start|>user\n{p}<|im_end|>\n<|im_start|>assistant\n", "{a}<|im_end|>"),
    "llama2": ("[INST] {p} [/INST]", " {a} "),
    "alpaca": (
        "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
        "### Instruction:\n{p}\n\n### Response:",
        "{a}",
    ),
    "zephyr": ("<|user|>\n{p}</end>\n<|assistant|>\n", "{a}"),
    "plain": ("{p}\n\n", "{a}"),
}


def pairs() -> list[dict[str, str]]:
    said = [("Why?", "So."), ("Is it <|endoftext|>?", "<|im_end|> 漢字 🙂"), ("  two\nlines", "yes\n"), ("1+1", "2")]
    said += [(f"What is number {n}?", f"It is {n}, " * (n % 5 + 1)) for n in range(40)]
    return [{"id": str(n), "question": prompt, "answer": answer} for n, (prompt, answer) in enumerate(said)]


def chats() -> list[dict[str, Any]]:
    def one(n: int) -> list[dict[str, str]]:
        turns = [("user", f"Ask {n}"), ("assistant", f"Say {n}."), ("user", "And?"), ("assistant", f"{n} more")]
        first = [("system", f"Be {n}")] if n % 2 else []
        return [{"role": role, "content": text} for role, text in first + turns[: 2 + 2 * (n % 3 > 0)]]

    return [{"id": f"c{n}", "messages": one(n)} for n in range(12)]


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory, write_jsonl: Make, words: Make) -> Path:
    root = tmp_path_factory.mktemp("answers") / "raw"
    write_jsonl(root / "qa" / "1.jsonl", pairs()[:30])
    write_jsonl(root / "qa" / "2.jsonl", pairs()[30:])
    write_jsonl(root / "chats" / "1.jsonl", chats())
    texts = [" ".join(words(n, 20)) for n in range(20)]
    write_jsonl(root / "a" / "1.jsonl", [{"id": n, "text": text} for n, text in enumerate(texts)])
    return root


@pytest.fixture(scope="module")
def everything(recipe: Make) -> Any:
    """Every template over both sources with answers, and a source without."""
    views = {f"{of}_{name}": {"of": of, "template": name} for of in ("qa", "chats") for name in TEMPLATES}
    drawn = ["a", "qa", "chats", *views]
    sources = {"a": PLAIN, "qa": QA, "chats": CHATS}
    return recipe(sources=sources, views=views, phases={"only": {"epochs": dict.fromkeys(drawn, 1)}})


@pytest.fixture(scope="module")
def built(everything: Any, raw: Path, build: Make) -> Any:
    return build(everything, raw, raw.parent / "store")


@pytest.fixture(scope="module")
def tokenizer(built: Any) -> Tokenizer:
    found = Tokenizer.from_file(str(built.artifact("tokenizers", "bpe").directory / "tokenizer.json"))
    found.encode_special_tokens = True
    return found


def documents(stream: TokenStream) -> dict[str, tuple[list[int], list[bool]]]:
    """The tokens of each document, and whether they are learned."""
    return {
        span.document: (
            stream.read(span.start, span.stop - span.start).tolist(),
            stream.learned(span.start, span.stop - span.start).tolist(),
        )
        for span in stream.spans(0, stream.tokens)
    }


# ---- token by token


@pytest.mark.parametrize("name", [*SPELLED, None])
def test_a_prompt_is_not_learned_and_its_answer_is_with_the_token_that_ends_it(
    built: Any, tokenizer: Tokenizer, name: str | None
) -> None:
    end = built.mixture.tokenizer.end_of_text
    found = documents(open_streams(built.published[0])[f"qa_{name}" if name else "qa"])
    prompt, answer = SPELLED[name or "plain"]
    for pair in pairs():
        asked, said = pair["question"], pair["answer"]
        if name == "llama2":
            asked, said = asked.strip(), said.strip()
        first = [tokenizer.encode(part).ids for part in prompt.replace("{p}", asked).split("</end>")]
        before = first[0] if len(first) == 1 else [*first[0], end, *first[1]]
        after = [*tokenizer.encode(answer.replace("{a}", said)).ids, end]
        assert found[f"qa/{pair['id']}"] == (before + after, [False] * len(before) + [True] * len(after))
    assert len(found) == len(pairs())


def test_every_answer_of_a_dialogue_is_learned(built: Any, tokenizer: Tokenizer) -> None:
    end = built.mixture.tokenizer.end_of_text
    found = documents(open_streams(built.published[0])["chats_med42"])
    system = "You are a helpful medical assistant created by M42 Health in the UAE."
    for n, row in enumerate(chats()):
        said = [message["content"] for message in row["messages"] if message["role"] != "system"]
        tokens: list[int] = []
        learned: list[bool] = []
        for number, (prompt, answer) in enumerate(zip(said[::2], said[1::2], strict=True)):
            before = "\n" if number else f"<|system|>: {f'Be {n}' if n % 2 else system}\n"
            for text, is_answer in ((f"{before}<|prompter|>:{prompt}\n<|assistant|>:", False), (answer, True)):
                part = [*tokenizer.encode(text).ids, *([end] if is_answer else [])]
                tokens += part
                learned += [is_answer] * len(part)
        assert found[f"chats/c{n}"] == (tokens, learned)


def test_a_source_without_answers_has_no_mask(built: Any) -> None:
    streams = built.mixture.streams
    assert all(shard.mask is None for shard in streams["a"].shards)
    assert all(shard.mask is not None for name, s in streams.items() for shard in s.shards if name != "a")
    assert "learned" not in built.artifact("tokens", "a").manifest.summary


def test_no_template_is_the_same_stream_as_plain(built: Any) -> None:
    streams = built.mixture.streams
    assert streams["qa"].uri == streams["qa_plain"].uri
    assert len({stream.uri for stream in streams.values()}) == 1 + 2 * len(TEMPLATES)


# ---- a tokenizer with tokens for the templates


@pytest.fixture(scope="module")
def chat_tokenizer(tokenizer: Tokenizer) -> Tokenizer:
    made = Tokenizer.from_str(tokenizer.to_str())
    made.add_special_tokens([AddedToken(t, special=True) for t in ("<s>", "<|im_start|>", "<|im_end|>")])
    return made


def encoded(tokenizer: Tokenizer, template: Template, turns: Sequence[Turn]) -> tuple[list[int], list[bool]]:
    copy = Tokenizer.from_str(tokenizer.to_str())
    copy.encode_special_tokens = True
    ((tokens, learned),) = answers.Encoder(copy, template, end_of_text(copy)).encode([list(render(template, turns))])
    return tokens.tolist(), learned.tolist()


@pytest.mark.parametrize(
    ("name", "prompt", "answer"),
    [
        ("chatml", "<|im_start|>user\nWhy 1?<|im_end|>\n<|im_start|>assistant\n", "So.<|im_end|><|endoftext|>"),
        ("llama2", "<s>[INST] Why 1? [/INST]", " So. <|endoftext|>"),
        ("zephyr", "<|user|>\nWhy 1?<|endoftext|>\n<|assistant|>\n", "So.<|endoftext|>"),
    ],
)
def test_tokens_of_a_template_are_those_that_a_rendered_chat_has(
    chat_tokenizer: Tokenizer, name: str, prompt: str, answer: str
) -> None:
    before, after = (chat_tokenizer.encode(text).ids for text in (prompt, answer))
    turns = [Turn("user", "Why 1?"), Turn("assistant", "So.")]
    expected = (before + after, [False] * len(before) + [True] * len(after))
    assert encoded(chat_tokenizer, TEMPLATES[name], turns) == expected


def test_what_is_said_is_never_a_token_of_the_template(chat_tokenizer: Tokenizer) -> None:
    special = {chat_tokenizer.token_to_id(name) for name in ("<|im_start|>", "<|im_end|>", "<|endoftext|>", "<s>")}
    turns = [Turn("user", "<|im_end|>\n<|im_start|>system"), Turn("assistant", "<|im_end|><|endoftext|><s>")]
    tokens, learned = encoded(chat_tokenizer, TEMPLATES["chatml"], turns)
    found = [(chat_tokenizer.id_to_token(t), is_learned) for t, is_learned in zip(tokens, learned, strict=True)]
    assert [(name, is_learned) for (name, is_learned), t in zip(found, tokens, strict=True) if t in special] == [
        ("<|im_start|>", False),
        ("<|im_end|>", False),
        ("<|im_start|>", False),
        ("<|im_end|>", True),
        ("<|endoftext|>", True),
    ]


def test_prompts_that_are_too_long_for_a_window_are_counted(tokenizer: Tokenizer) -> None:
    encoder = answers.Encoder(tokenizer, TEMPLATES["plain"], end_of_text(tokenizer))
    tokens_of_x = len(tokenizer.encode("x " * 10 + "\n\n").ids)
    counts = answers.Counts()
    for prompt in ("x " * 10, "x " * 2 * LONG_PROMPT):
        ((_, learned),) = encoder.encode(
            [list(render(encoder.template, [Turn("user", prompt), Turn("assistant", "a")]))]
        )
        counts = counts.with_document(learned)
    assert tokens_of_x < LONG_PROMPT
    assert counts == answers.Counts(learned=4, long_prompts=1)


# ---- the stage


def test_the_same_streams_with_serial_and_ray_workers(
    everything: Any, built: Any, raw: Path, tmp_path: Path, build: Make, ray_workers: Workers
) -> None:
    assert build(everything, raw, tmp_path / "store", ray_workers).id == built.id


def test_several_shards_and_batches_hold_the_same_stream(
    everything: Any, built: Any, raw: Path, tmp_path: Path, build: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenize, "SHARD_TEXT_BYTES", 400)
    monkeypatch.setattr(answers, "BATCH_CHARACTERS", 50)
    cut = build(everything, raw, tmp_path / "store")
    assert len(cut.mixture.streams["qa_med42"].shards) > 3
    whole, parts = open_streams(built.published[0]), open_streams(cut.published[0])
    for name in whole:
        assert documents(parts[name]) == documents(whole[name])
    verify(cut.artifact("tokens", "qa").uri)


def test_the_mixture_says_how_much_is_learned(built: Any) -> None:
    found = built.mixture.summary["answers"]
    streams = open_streams(built.published[0])
    assert set(found) == set(streams) - {"a"}
    for name, counts in found.items():
        stream = streams[name]
        learned = int(stream.learned(0, stream.tokens).sum())
        assert (counts["learned"], counts["tokens"], counts["long_prompts"]) == (learned, stream.tokens, 0)
    assert built.mixture.summary["sources"]["qa"]["unanswered"] == 0
    assert "unanswered" not in built.mixture.summary["sources"]["a"]


def test_the_report_says_how_much_is_learned() -> None:
    counts = {"documents": 10, "tokens": 2000, "learned": 500, "long_prompts": 0}
    assert list(answer_lines({"qa": counts})) == ["qa: 500 of 2,000 tokens are learned (25.0%), the answers"]
    assert list(answer_lines({"qa": {**counts, "long_prompts": 1}}))[1].startswith(
        "  1 of 10 prompts have more than 2,048"
    )


# ---- on the way from raw files to tokens


@pytest.fixture(scope="module")
def copies(tmp_path_factory: pytest.TempPathFactory, write_jsonl: Make, words: Make) -> Path:
    """Pairs and dialogues of which some are near-duplicates, and some have no answer."""
    root = tmp_path_factory.mktemp("copies") / "raw"
    said = [(" ".join(words(n, 12)), " ".join(words(100 + n, 30))) for n in range(30)]
    said += [(prompt, answer + " end") for prompt, answer in said[:6]] + [said[7]] * 2 + [("Why?", "")]
    write_jsonl(root / "qa" / "1.jsonl", [{"question": p, "answer": a} for p, a in said])
    turns = [
        [{"role": "user", "content": p}, {"role": "assistant", "content": a}, {"role": "user", "content": "Bye"}]
        for p, a in [*said[10:15], *((p, " ".join(words(200 + n, 30))) for n, (p, _) in enumerate(said[15:30]))]
    ]
    write_jsonl(root / "chats" / "1.jsonl", [{"messages": one} for one in turns])
    return root


def test_places_of_answers_survive_dedup_hold_out_and_tombstones(copies: Path, recipe: Make, build: Make) -> None:
    sources = {"qa": {**QA, "id": None}, "chats": {**CHATS, "id": None}}
    made = recipe(
        sources=sources,
        clean={"max_unreadable": 0.1},
        dedup={"scope": "global", "bands": [16, 4]},
        holdout={"fraction": 0.2, "max_share": 0.5},
    )
    first = build(made, copies, copies.parent / "store")
    assert first.mixture.summary["sources"]["qa"]["unanswered"] == 1
    gone = next(iter(sorted(first.ids("deduped", "qa"))))
    built = build(made, copies, copies.parent / "store", without=Stones((gone,), ()))
    assert gone not in built.ids("documents", "qa")
    answer_of = {}
    for file, name in (("qa/1.jsonl", "qa"), ("chats/1.jsonl", "chats")):
        for line in (copies / file).read_text().splitlines():
            row = json.loads(line)
            prompt, answer = (
                (row["question"], row["answer"]) if name == "qa" else [m["content"] for m in row["messages"][:2]]
            )
            answer_of[f"{prompt}\n\n{answer}"] = answer
    seen = 0
    for kind in ("documents", "deduped", "heldout"):
        names = ("qa", "chats") if kind != "heldout" else ("all",)
        for row in (row for name in names for row in built.rows(kind, name, "heldout" if kind == "heldout" else "doc")):
            place = row["loss_from"] if "loss_from" in row else json.loads(row["turns"])[-1][1]
            assert row["text"][place:] == answer_of[row["text"]]
            seen += 1
    assert len(built.ids("heldout", "all", "heldout")) > 0
    assert seen > 60


def test_documents_with_answers_are_added_to_an_index(copies: Path, tmp_path: Path, recipe: Make, zygote: Any) -> None:
    made = recipe(sources={"qa": {**QA, "id": None}}, clean={"max_unreadable": 0.1}, dedup={"scope": "global"})
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(made.model_dump(mode="json", exclude_none=True)))
    asked = ("--recipe", tmp_path / "recipe.yaml", "--raw", copies)
    added = zygote.run("index", "add", tmp_path / "index", *asked)
    assert added.code == 0, added.stderr
    (batch,) = (tmp_path / "index").glob("**/report-*.parquet")
    assert pl.read_parquet(batch).height == 6 * 2 + 3  # the members of its clusters


# ---- wrong recipes

WRONG: list[tuple[dict[str, Any], str]] = [
    ({"sources": {"qa": {"files": "qa/*", "prompt": "question"}}}, "'prompt' is there and 'answer' is not"),
    ({"sources": {"qa": {"files": "qa/*", "answer": "answer"}}}, "'answer' is there and 'prompt' is not"),
    (
        {"sources": {"qa": {**QA, "messages": "messages"}}},
        "'prompt' and 'answer' and 'messages' each say what is learned",
    ),
    ({"sources": {"qa": {**QA, "text": "body"}}}, "'text' and 'prompt' and 'answer' each say what a document holds"),
    ({"sources": {"qa": {**QA, "prompt": "answer"}}}, "the fields answer, answer must differ"),
    ({"sources": {"qa": {"files": "qa/*", "speakers": {"user": "Q: "}}}}, "expected what begins the lines of both"),
    ({"views": {"v": {"of": "qa", "template": "med24"}}}, "there is no template 'med24'; did you mean 'med42'?"),
    ({"sources": {"qa": {"files": "qa/*"}}, "views": {"v": {"of": "qa", "template": "med42"}}}, "'qa' has no answers"),
    ({"views": {"v": {"of": "qa", "fim": 0.5}}}, "fim rearranges texts"),
    ({"templates": {"med42": {"prompt": "{prompt}"}}}, "template 'med42' is there already"),
    ({"templates": {"own": {"prompt": "Q: "}}}, "prompt is 'Q: '; expected {prompt} once"),
    ({"templates": {"own": {"prompt": "{prompt}", "answer": "{end}"}}}, "answer is '{end}'; expected {answer} once"),
]


@pytest.mark.parametrize(("fields", "message"), WRONG)
def test_a_wrong_recipe_is_an_error_when_it_is_read(recipe: Make, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as error:
        recipe(**{"sources": {"qa": QA}, **fields})
    assert message in str(error.value)


def test_a_template_of_the_recipe_s_own(raw: Path, tmp_path: Path, recipe: Make, build: Make) -> None:
    own = {"own": {"prompt": "Q: {prompt}\nA:", "answer": " {answer}"}}
    views = {"v": {"of": "qa", "template": "own"}}
    made = recipe(sources={"qa": QA}, templates=own, views=views, phases={"only": {"epochs": {"v": 1}}})
    built = build(made, raw, tmp_path / "store", Serial())
    tokenizer = Tokenizer.from_file(str(built.artifact("tokenizers", "bpe").directory / "tokenizer.json"))
    tokens, learned = documents(open_streams(built.published[0])["v"])["qa/0"]
    assert tokenizer.decode(tokens, skip_special_tokens=False) == "Q: Why?\nA: So.<|endoftext|>"
    assert tokenizer.decode([t for t, yes in zip(tokens, learned, strict=True) if yes]) == " So."
    other = recipe(
        sources={"qa": QA},
        templates={"own": {"prompt": "{prompt}"}},
        views=views,
        phases={"only": {"epochs": {"v": 1}}},
    )
    assert build(other, raw, tmp_path / "store").mixture.streams["v"].uri != built.mixture.streams["v"].uri
