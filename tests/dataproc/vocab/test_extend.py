"""A tokenizer that is extended has new tokens that fire, and leaves every other text as it was."""

from __future__ import annotations

import json
import unicodedata
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fontTools.unicodedata import script as script_code
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from dataproc.recipe import DataRecipe
from dataproc.vocab.scripts import code_of, members
from dataproc.workers import Workers
from manifest.added import Added, vocabulary_digest
from manifest.artifact import open_streams
from manifest.errors import RecipeError

Make = Callable[..., Any]
ADD = 60


def asked(recipe: Make, base: Path, *, way: str = "extend", script: str = "Arabic", **more: Any) -> DataRecipe:
    source = script.lower()
    sources = {name: {"files": f"{name}/*"} for name in ("english", source)}
    fields = {"base": str(base), "add": ADD, "on": [source], **more}
    special = fields.pop("special", ())
    made = recipe(sources=sources, tokenizer={way: fields, "special": special}, block_tokens=64)
    assert isinstance(made, DataRecipe)
    return made


def made_of(built: Any, name: str = "extended") -> tuple[Tokenizer, Added, Path]:
    directory = built.artifact("tokenizers", name).directory
    added = Added.model_validate_json((directory / "added.json").read_text())
    return Tokenizer.from_file(str(directory / "tokenizer.json")), added, directory


def tokenizer_in(directory: Path) -> Tokenizer:
    return Tokenizer.from_file(str(directory / "tokenizer.json"))


def ids_of(tokenizer: Tokenizer, text: str) -> list[int]:
    return list(tokenizer.encode(text, add_special_tokens=False).ids)


@pytest.fixture(scope="module", params=["Arabic", "Devanagari", "Han"])
def extended(
    request: pytest.FixtureRequest, base: Path, bilingual: Path, recipe: Make, build: Make, tmp_path_factory: Any
) -> tuple[str, Tokenizer, Tokenizer, Added]:
    """(script, base, the same extended, its new tokens)"""
    store = tmp_path_factory.mktemp("store")
    tokenizer, added, _ = made_of(
        build(asked(recipe, base, script=request.param), bilingual, store, until="tokenizers")
    )
    return request.param, tokenizer_in(base), tokenizer, added


OTHERS = [
    chr(point)
    for point in range(0x110000)
    if script_code(chr(point)) != "Zzzz" and (point < 0x3000 or point % 97 == 0 or 0x1F600 <= point < 0x1F650)
]
WORDS = ["the ", " model", "naïve", "Жизнь", "ελληνικά", "שלום", "ܫܠܡܐ", "ދިވެހި", "বাংলা", "ไทย", "日本", "한국", "🙂", "\n\n", "·", "—"]


@settings(max_examples=60)
@given(data=st.data())
def test_a_text_without_the_script_keeps_its_ids(
    extended: tuple[str, Tokenizer, Tokenizer, Added], data: st.DataObject
) -> None:
    script, before, after, _ = extended
    own = members((code_of(script),))
    parts = data.draw(st.lists(st.sampled_from(WORDS) | st.sampled_from(OTHERS), max_size=40))
    text = "".join(character for character in "".join(parts) if not own[ord(character)])
    assert ids_of(after, text) == ids_of(before, text)


@settings(max_examples=60)
@given(data=st.data())
def test_every_text_comes_back(extended: tuple[str, Tokenizer, Tokenizer, Added], data: st.DataObject) -> None:
    script, before, after, added = extended
    letters = [token.token for token in added.tokens if token.token.isalpha()] + WORDS + OTHERS
    inside = [chr(point) for point in np.flatnonzero(members((code_of(script),)))[:200].tolist()]
    text = "".join(data.draw(st.lists(st.sampled_from(letters) | st.sampled_from(inside), max_size=30)))
    assert after.decode(ids_of(after, text)) == before.decode(ids_of(before, text))


def test_old_tokens_keep_their_ids_and_new_ones_follow(extended: tuple[str, Tokenizer, Tokenizer, Added]) -> None:
    _, before, after, added = extended
    old, new = before.get_vocab(with_added_tokens=True), after.get_vocab(with_added_tokens=True)
    assert {token: new[token] for token in old} == old
    first = max(old.values()) + 1
    assert [token.id for token in added.tokens] == list(range(first, first + ADD))
    assert {token.token: token.id for token in added.tokens} == {t: n for t, n in new.items() if n >= first}
    assert added.base_size == first
    assert added.base == vocabulary_digest(old)


def test_new_tokens_fire_as_often_as_it_is_said(
    extended: tuple[str, Tokenizer, Tokenizer, Added], bilingual: Path
) -> None:
    script, before, after, added = extended
    files = sorted((bilingual / script.lower()).iterdir())
    texts = [json.loads(line)["text"] for file in files for line in file.read_text().splitlines()]
    used = Counter(number for text in texts for number in ids_of(after, text))
    assert {token.id: token.count for token in added.tokens} == {token.id: used[token.id] for token in added.tokens}
    assert added.silent == sum(not used[token.id] for token in added.tokens) < ADD / 4
    fewer = sum(len(ids_of(after, text)) for text in texts) / sum(len(ids_of(before, text)) for text in texts)
    assert fewer < 0.6


def test_pieces_are_what_the_base_has_for_a_token(extended: tuple[str, Tokenizer, Tokenizer, Added]) -> None:
    _, before, after, added = extended
    assert all(max(token.pieces) < added.base_size for token in added.tokens)
    for token in added.tokens:
        text = after.decode([token.id])
        if "\ufffd" not in text and text.strip() == text and unicodedata.category(text[0])[0] == "L":
            whole = ids_of(before, text)
            spaced = before.token_to_id("▁")
            assert list(token.pieces) in (whole, whole[1:] if whole[0] == spaced else whole, [spaced, *whole])


def test_the_first_tokens_of_many_are_those_of_few(
    plain_base: Path, bilingual: Path, recipe: Make, build: Make, tmp_path: Path
) -> None:
    few, many = (
        made_of(build(asked(recipe, plain_base, add=add), bilingual, tmp_path, until="tokenizers"))[1].tokens
        for add in (20, ADD)
    )
    assert [(t.id, t.token, t.pieces) for t in few] == [(t.id, t.token, t.pieces) for t in many[:20]]


def test_workers_and_files_make_no_difference(
    base: Path, bilingual: Path, recipe: Make, build: Make, tmp_path: Path, ray_workers: Workers
) -> None:
    wanted = asked(recipe, base, special="fim")
    here = build(wanted, bilingual, tmp_path / "1", until="tokenizers")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dataproc.documents.SHARD_ROWS", 7)
        patch.setattr("dataproc.vocab.words.PIECES", 3)
        cut = build(wanted, bilingual, tmp_path / "2", until="tokenizers")
    on_ray = build(wanted, bilingual, tmp_path / "3", ray_workers, until="tokenizers")
    assert len({built.artifact("tokenizers", "extended").manifest.digest for built in (here, cut, on_ray)}) == 1


def test_transformers_gives_the_same_ids(
    base: Path, bilingual: Path, recipe: Make, build: Make, tmp_path: Path
) -> None:
    from transformers import AutoTokenizer

    tokenizer, _, directory = made_of(build(asked(recipe, base), bilingual, tmp_path, until="tokenizers"))
    loaded = AutoTokenizer.from_pretrained(directory)
    file = bilingual / "arabic" / "0.jsonl"
    for text in [json.loads(line)["text"] for line in file.read_text().splitlines()] + WORDS:
        ids = loaded(text, add_special_tokens=False)["input_ids"]
        assert ids == ids_of(tokenizer, text)
        assert loaded.decode(ids) == text
    assert len(loaded) == tokenizer.get_vocab_size()


def test_special_tokens_come_after_the_new_ones(
    base: Path, bilingual: Path, recipe: Make, build: Make, tmp_path: Path
) -> None:
    built = build(asked(recipe, base, special="fim"), bilingual, tmp_path)
    tokenizer, added, _ = made_of(built)
    last = added.tokens[-1].id
    fim = built.mixture.tokenizer.fim
    assert (fim.prefix, fim.middle, fim.suffix, fim.pad) == (last + 1, last + 2, last + 3, last + 4)
    assert built.mixture.tokenizer.vocab_size == last + 5
    assert ids_of(tokenizer, "<|fim_pad|>") == [last + 4]


def test_the_script_is_found_from_the_text(
    plain_base: Path, bilingual: Path, recipe: Make, build: Make, tmp_path: Path, capsys: Any
) -> None:
    digests = set()
    for number, script in enumerate(((), "Arabic", "arab")):
        built = build(
            asked(recipe, plain_base, **({"script": "Arabic"} | {"on": ["arabic"]})).model_copy(), bilingual,
            tmp_path / str(number), until="tokenizers",
        ) if not script else build(named(recipe, plain_base, script), bilingual, tmp_path / str(number), until="tokenizers")
        digests.add(built.artifact("tokenizers", "extended").manifest.digest)
    assert len(digests) == 1
    assert "script: Arabic (9" in capsys.readouterr().err


def named(recipe: Make, base: Path, script: str) -> DataRecipe:
    return asked(recipe, base).model_copy(
        update={"tokenizer": asked(recipe, base).tokenizer.model_validate(
            {"extend": {"base": str(base), "add": ADD, "on": ["arabic"], "script": script}}
        )}
    )
