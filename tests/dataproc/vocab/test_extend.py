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

from dataproc.recipe import DataRecipe, read
from dataproc.vocab.scripts import code_of, members
from dataproc.workers import Workers
from manifest.added import Added, vocabulary_digest
from manifest.artifact import open_streams
from manifest.errors import RecipeError

Make = Callable[..., Any]
ADD = 60


def asked(recipe: Make, base: Path, *, way: str = "extend", source: str = "arabic", **more: Any) -> DataRecipe:
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
        build(asked(recipe, base, source=request.param.lower()), bilingual, store, until="tokenizers")
    )
    return request.param, tokenizer_in(base), tokenizer, added


OTHERS = [
    chr(point)
    for point in range(0x110000)
    if script_code(chr(point)) != "Zzzz" and (point < 0x3000 or point % 97 == 0 or 0x1F600 <= point < 0x1F650)
]
WORDS = [
    "the ",
    " model",
    "naïve",
    "Жизнь",
    "ελληνικά",
    "שלום",
    "ܫܠܡܐ",
    "ދިވެހި",
    "বাংলা",
    "ไทย",
    "日本",
    "한국",
    "🙂",
    "\n\n",
    "·",
    "—",
]


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_text_without_the_script_keeps_its_ids(
    extended: tuple[str, Tokenizer, Tokenizer, Added], data: st.DataObject
) -> None:
    script, before, after, _ = extended
    own = members((code_of(script),))
    parts = data.draw(st.lists(st.sampled_from(WORDS) | st.sampled_from(OTHERS), max_size=40))
    text = "".join(character for character in "".join(parts) if not own[ord(character)])
    assert ids_of(after, text) == ids_of(before, text)


@settings(max_examples=60, deadline=None)
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
    for number, script in enumerate(({}, {"script": "Arabic"}, {"script": ["arab"]})):
        built = build(asked(recipe, plain_base, **script), bilingual, tmp_path / str(number), until="tokenizers")
        digests.add(built.artifact("tokenizers", "extended").manifest.digest)
    assert len(digests) == 1
    assert "script: Arabic (9" in capsys.readouterr().err


def least_used(merges: list[tuple[str, ...]], uses: dict[str, int], count: int, ids: dict[str, int]) -> list[str]:
    """One after the other, the least used that no merge needs; its two parts are used in its place."""
    gone: list[str] = []
    while len(gone) < count:
        left = [merge for merge in merges if "".join(merge) not in gone]
        leaves = {"".join(merge) for merge in left} - {part for merge in left for part in merge}
        token = min(leaves, key=lambda leaf: (uses[leaf], -ids[leaf]))
        for part in next(merge for merge in left if "".join(merge) == token):
            uses[part] += uses[token]
        gone.append(token)
    return gone


def test_replaced_tokens_are_the_least_used_that_no_other_is_made_from(
    base: Path, bilingual: Path, recipe: Make, build: Make, tmp_path: Path
) -> None:
    before = tokenizer_in(base)
    merges = [tuple(merge) for merge in json.loads(before.to_str())["model"]["merges"]]
    old = before.get_vocab(with_added_tokens=True)
    built = build(asked(recipe, base, way="replace", add=12), bilingual, tmp_path, until="tokenizers")
    after, added, _ = made_of(built, "replaced")
    new = after.get_vocab(with_added_tokens=True)
    gone = {token.token: token.id for token in added.replaced}
    assert {token.id for token in added.tokens} == set(gone.values())
    assert {token: number for token, number in old.items() if token not in gone}.items() <= new.items()
    assert max(new.values()) == max(old.values())
    assert len(new) == len(old)
    files = [file for source in ("english", "arabic") for file in sorted((bilingual / source).iterdir())]
    texts = [json.loads(line)["text"] for file in files for line in file.read_text().splitlines()]
    used = Counter(number for text in texts for number in ids_of(before, text))
    assert {token.id: token.count for token in added.replaced} == {n: used[n] for n in gone.values()}
    assert list(gone) == least_used(merges, {token: used[number] for token, number in old.items()}, 12, old)
    for text in texts:
        assert after.decode(ids_of(after, text)) == before.decode(ids_of(before, text))


def test_a_replaced_vocabulary_keeps_the_ids_of_texts_without_spared_tokens(
    plain_base: Path, bilingual: Path, recipe: Make, build: Make, tmp_path: Path
) -> None:
    built = build(asked(recipe, plain_base, way="replace", add=8), bilingual, tmp_path, until="tokenizers")
    after, added, _ = made_of(built, "replaced")
    before, gone = tokenizer_in(plain_base), {token.id for token in added.replaced}
    lines = [text for text in ("the dog and the fox", "it's a model", "12 others", "woods") if text]
    same = [line for line in lines if not gone & set(ids_of(before, line))]
    assert same
    assert all(ids_of(after, line) == ids_of(before, line) for line in same)


def test_tokens_take_four_bytes_once_the_vocabulary_outgrows_two(
    bilingual: Path, recipe: Make, build: Make, tmp_path: Path, plain_base: Path
) -> None:
    content = json.loads((plain_base / "tokenizer.json").read_text())
    last = list(content["model"]["vocab"])[-1]
    content["model"]["vocab"][last] = 65_490
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    sizes = {}
    for add in (8, 9):
        built = build(asked(recipe, tmp_path, add=add), bilingual, tmp_path / "store")
        stream = open_streams(built.published[0])["arabic"]
        tokens = stream.read(0, stream.tokens)
        sizes[built.mixture.tokenizer.vocab_size] = tokens.dtype.itemsize
        assert tokens.max() > 65_490
        assert tokens.min() >= 0
    assert sizes == {65_499: 2, 65_500: 4}


def unigram() -> Tokenizer:
    return Tokenizer(models.Unigram([("<unk>", 0.0), ("a", -1.0)], 0, byte_fallback=False))


def characters() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE({"<unk>": 0, "a": 1, "b": 2, "ab": 3}, [("a", "b")], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(["</s>"])
    return tokenizer


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (unigram, r"tokenizer\.extend\.base: .* is a Unigram; only BPE can be extended"),
        (characters, r"has no token for some bytes .* would be lost as <unk>; take another"),
    ],
)
def test_a_base_that_cannot_be_extended_is_refused(
    make: Callable[[], Tokenizer], said: str, bilingual: Path, recipe: Make, build: Make, tmp_path: Path
) -> None:
    make().save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(RecipeError, match=said):
        build(asked(recipe, tmp_path), bilingual, tmp_path / "store")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"add": "50k"}, r"extend\.add: 50,000 tokens were asked for, and .* arabic gives [\d,]+ that it has twice"),
        ({"on": ["english"]}, r"extend\.on: english has hardly a letter that is not Latin"),
        ({"on": ["english"], "script": "Thai"}, "the sample of english .* has no text in Thai script"),
        ({"sample_bytes": 1}, "hardly a letter|has no text"),
        ({"base": "none"}, r"none/?(tokenizer\.json)? does not exist"),
        (
            {"base": None},
            r"tokenizer\.extend\.base is missing: name the tokenizer in the recipe, or give it with --base",
        ),
    ],
)
def test_what_cannot_be_extended_by_is_an_error(
    fields: dict[str, Any], said: str, plain_base: Path, bilingual: Path, recipe: Make, build: Make, tmp_path: Path
) -> None:
    wanted = {"extend": {"base": str(plain_base), "add": ADD, "on": ["arabic"], **fields}}
    made = recipe(sources={n: {"files": f"{n}/*"} for n in ("english", "arabic")}, tokenizer=wanted)
    with pytest.raises(RecipeError, match=said):
        build(made, bilingual, tmp_path / "store", until="tokenizers")
    assert not list((tmp_path / "store" / "tokenizers").glob("*"))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"add": 0}, "greater than 0"),
        ({"add": -1}, "greater than 0"),
        ({"on": ["arabik"]}, r"tokenizer\.extend\.on: there is no source 'arabik'; did you mean 'arabic'"),
        ({"on": []}, "at least 1"),
        ({"script": "Arabik"}, "Unicode has no script 'Arabik'; did you mean Arabic"),
        ({"script": "Common"}, "Unicode has no script 'Common'"),
    ],
)
def test_what_a_recipe_may_not_say(fields: dict[str, Any], said: str, recipe: Make) -> None:
    with pytest.raises(ValueError, match=said):
        recipe(
            sources={n: {"files": f"{n}/*"} for n in ("english", "arabic")},
            tokenizer={"extend": {"base": "x", "add": 9, "on": ["arabic"], **fields}},
        )


def test_on_is_a_key_in_yaml_too(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(
        "name: x\nsources: {english: {files: e}, arabic: {files: a}}\nphases: {p: {epochs: {arabic: 1}}}\n"
        "tokenizer: {extend: {base: mine, add: 4096, on: [arabic]}}\n"
    )
    grown = read(tmp_path / "recipe.yaml", base="yours").tokenizer.grown
    assert grown is not None
    assert (grown.on, grown.add, grown.base) == (("arabic",), 4096, "yours")


def test_a_base_for_a_recipe_that_extends_none_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(
        "name: x\nsources: {a: {files: a}}\nphases: {p: {epochs: {a: 1}}}\ntokenizer: {path: mine}\n"
    )
    with pytest.raises(RecipeError, match=r"--base yours: .* extends no tokenizer"):
        read(tmp_path / "recipe.yaml", base="yours")


def test_fill_in_the_middle_needs_its_tokens(
    plain_base: Path, bilingual: Path, recipe: Make, build: Make, tmp_path: Path
) -> None:
    sources = {"english": {"files": "english/*"}}
    fields = {"views": {"v": {"of": "english", "fim": 0.5}}, "phases": {"p": {"epochs": {"v": 1}}}, "sources": sources}
    for tokenizer in ({"path": str(plain_base)}, {"train": {"vocab_size": 300}}):
        with pytest.raises(RecipeError, match=r"views\.v\.fim: the tokenizer has no tokens for fill-in-the-middle"):
            build(recipe(tokenizer=tokenizer, **fields), bilingual, tmp_path / "store")
