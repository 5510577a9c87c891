"""The fertility report counts what the tokenizers do, and an extended one's beginnings are smaller extensions."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from dataproc.vocab import fertility, fertility_page
from dataproc.vocab.texts import Sample
from manifest.added import Added

Make = Callable[..., Any]


@pytest.fixture(scope="module")
def built(base: Path, bilingual: Path, recipe: Make, build: Make, tmp_path_factory: Any) -> Any:
    """A mixture of English and Arabic whose tokenizer has 64 new tokens."""
    made = recipe(
        sources={name: {"files": f"{name}/*"} for name in ("english", "arabic")},
        tokenizer={"extend": {"base": str(base), "add": 64, "on": "arabic"}},
        block_tokens=64,
        holdout={"fraction": 0.2, "max_share": 0.5},
    )
    return build(made, bilingual, tmp_path_factory.mktemp("mixture"))


def directory_of(built: Any) -> Path:
    found = built.artifact("tokenizers", "extended").directory
    assert isinstance(found, Path)
    return found


def test_the_counts_are_those_of_the_tokenizer(built: Any, base: Path) -> None:
    texts = {"a": ["the dog", "دار  دار\nx"], "b": ["<|endoftext|>"]}
    found = fertility.measure(fertility.subjects([str(base)]), texts, None)
    tokenizer = Tokenizer.from_file(str(base / "tokenizer.json"))
    tokenizer.encode_special_tokens = True
    tokens = sum(len(tokenizer.encode(text, add_special_tokens=False).ids) for text in texts["a"])
    (point,) = found.points
    assert found.text["a"].model_dump() == {"documents": 2, "words": 5, "characters": 17, "bytes": 23}
    assert point.sources["a"].tokens == tokens
    assert point.sources["a"].tokens_per_word == round(tokens / 5, 4)
    assert point.sources["a"].bytes_per_token == round(23 / tokens, 4)
    assert point.sources["b"].tokens > 1
    assert point.new is None


def test_a_curve_begins_at_the_base_and_falls(built: Any, base: Path) -> None:
    texts = {source: [row["text"] for row in built.rows("deduped", source)] for source in ("english", "arabic")}
    found = fertility.measure(fertility.subjects([str(directory_of(built))]), texts, ())
    assert [point.new for point in found.points] == [0, 2, 4, 8, 16, 32, 64]
    whole = fertility.measure(fertility.subjects([str(base), str(directory_of(built))]), texts, None)
    assert found.points[0].sources == whole.points[0].sources
    assert found.points[-1].sources == whole.points[1].sources
    arabic = [point.sources["arabic"].tokens for point in found.points]
    assert arabic == sorted(arabic, reverse=True)
    assert len(set(arabic)) == len(arabic)
    assert {point.sources["english"].tokens for point in found.points} == {found.points[0].sources["english"].tokens}


def test_the_beginning_of_an_extension_is_the_extension_by_fewer(
    built: Any, base: Path, bilingual: Path, recipe: Make, build: Make, tmp_path: Path
) -> None:
    made = recipe(
        sources={name: {"files": f"{name}/*"} for name in ("english", "arabic")},
        tokenizer={"extend": {"base": str(base), "add": 20, "on": "arabic"}},
        holdout={"fraction": 0.2, "max_share": 0.5},
        block_tokens=64,
    )
    few = directory_of(build(made, bilingual, tmp_path, until="tokenizers"))
    (subject,) = fertility.subjects([str(directory_of(built))])
    ours, theirs = fertility.beginning(subject, 20), Tokenizer.from_file(str(few / "tokenizer.json"))
    assert ours.get_vocab() == theirs.get_vocab()
    assert json.loads(ours.to_str())["model"] == json.loads(theirs.to_str())["model"]


def test_a_mixture_is_measured_on_its_own_documents_and_on_others(
    built: Any, bilingual: Path, tmp_path: Path, zygote: Any
) -> None:
    mixture = built.published[0].uri
    outcome = zygote.run("fertility", mixture, "--curve", "0,10,64", "--out", tmp_path / "own")
    assert outcome.code == 0, outcome.stderr
    written = fertility.Fertility.model_validate_json(Path(outcome.stdout.strip()).read_bytes())
    assert written.text["arabic"].documents == len(built.rows("deduped", "arabic"))
    assert [point.new for point in written.points] == [0, 10, 64]
    assert (tmp_path / "own" / "fertility.png").read_bytes().startswith(b"\x89PNG")
    assert "| arabic | 64 |" in (tmp_path / "own" / "fertility.md").read_text()
    heldout = built.artifact("heldout", "all").uri
    raw = bilingual / "devanagari"
    outcome = zygote.run("fertility", mixture, "--on", heldout, raw, "--json", "--out", tmp_path / "others")
    assert outcome.code == 0, outcome.stderr
    found = fertility.Fertility.model_validate_json(outcome.stdout)
    assert set(found.text) == {"english", "arabic", "devanagari"}
    assert sum(found.text[name].documents for name in ("english", "arabic")) == len(
        built.rows("heldout", "all", "held")
    )
    assert found.text["devanagari"].documents == 40
    assert found.points[0].new == 64


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["BASE"], "nothing to measure on"),
        (["BASE", "--on", "RAW/english", "--curve"], "--curve: none of .* is an extended tokenizer"),
        (["TOKENIZER", "--on", "RAW/english", "--curve", "0,65"], "has 64 new tokens; ask for at most so many"),
        (["TOKENIZER", "--on", "RAW/english", "--curve", "few"], "--curve few: .*expected counts such as 0,1k,2k"),
        (["TOKENIZER", "--on", "RAW/none"], "--on .*none: there is nothing at this path"),
        (["TOKENIZER", "--on", "RAW/english", "--text", "body"], "there is no word to measure on"),
        (["TOKENIZER", "--on", "RAW/english", "--sample-bytes", "0"], "--sample-bytes 0: expected at least 1"),
        (["RAW"], "tokenizer.json does not exist"),
    ],
)
def test_wrong_questions_are_errors(
    argv: list[str], said: str, built: Any, base: Path, bilingual: Path, tmp_path: Path, zygote: Any
) -> None:
    import re

    places = {"BASE": str(base), "TOKENIZER": str(directory_of(built))}
    given = [places.get(part, part.replace("RAW", str(bilingual))) for part in argv]
    outcome = zygote.run("fertility", *given, "--out", tmp_path / "out")
    assert outcome.code == 2
    assert re.search(said, outcome.stderr)
    assert not (tmp_path / "out").exists()


def test_the_sample_is_by_hash_and_bounded() -> None:
    texts = {f"id{n}": "x" * (n % 7 + 1) for n in range(200)}
    one, other = Sample(100), Sample(100)
    for identifier, text in texts.items():
        one.add(identifier, text)
    for identifier, text in reversed(texts.items()):
        other.add(identifier, text)
    assert one.texts == other.texts
    assert 90 <= sum(map(len, one.texts)) <= 100


def test_bars_are_drawn_for_whole_tokenizers(base: Path) -> None:
    found = fertility.measure(fertility.subjects([str(base)]), {"a": ["the dog"]}, None)
    assert fertility_page.picture(found).startswith(b"\x89PNG")
    assert "tokens/word" in fertility_page.page(found)


def test_what_is_beside_an_extended_tokenizer_is_read_back(built: Any) -> None:
    added = Added.model_validate_json((directory_of(built) / "added.json").read_bytes())
    assert built.artifact("tokenizers", "extended").manifest.summary["silent"] == added.silent
