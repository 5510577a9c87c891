"""A tokenizer is trained alike on any workers, and a given one is used as it is, but never cut or padded."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from dataproc.vocab.files import END_OF_TEXT
from dataproc.workers import Workers
from manifest.artifact import open_streams
from manifest.errors import CorruptArtifact, RecipeError

Make = Callable[..., Any]


@pytest.fixture
def raw(tmp_path: Path, write_jsonl: Make, words: Make) -> Path:
    for source in "ab":
        texts = [" ".join(words(ord(source) * 1000 + i, 30)) for i in range(40)]
        write_jsonl(tmp_path / "raw" / source / "x.jsonl", [{"text": text} for text in texts])
    return tmp_path / "raw"


def tokenizer_json(built: Any, name: str = "bpe") -> bytes:
    return (built.artifact("tokenizers", name).directory / "tokenizer.json").read_bytes()


def save(path: Path, tokenizer: Tokenizer) -> Path:
    tokenizer.save(str(path))
    return path


def words_only(*special: str) -> Tokenizer:
    vocabulary = {word: i for i, word in enumerate(["[UNK]", "a", "b", "c"])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(list(special))
    return tokenizer


def test_training_again_and_elsewhere_gives_the_same_bytes(
    raw: Path, tmp_path: Path, recipe: Make, build: Make, ray_workers: Workers, zygote: Any
) -> None:
    first, again = (build(recipe(), raw, tmp_path / store, until="tokenizers") for store in ("1", "2"))
    on_ray = build(recipe(), raw, tmp_path / "ray", ray_workers, until="tokenizers")
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe().model_dump(mode="json", exclude_none=True)))
    command = ["build", tmp_path / "recipe.yaml", "--raw", raw, "--out", tmp_path / "3", "--workers", "serial"]
    outcome = zygote.run(*command, "--until", "tokenizers")
    elsewhere = Path(outcome.stdout.strip()) / "tokenizer.json"
    assert {tokenizer_json(built) for built in (first, again, on_ray)} == {elsewhere.read_bytes()}


def test_the_sample_does_not_depend_on_how_the_files_are_cut(
    raw: Path, tmp_path: Path, recipe: Make, build: Make
) -> None:
    sampled = recipe(tokenizer={"train": {"vocab_size": 300, "sample_bytes": "5k"}})
    whole = build(sampled, raw, tmp_path / "whole", until="tokenizers")
    lines = (raw / "a" / "x.jsonl").read_text().splitlines(keepends=True)
    (raw / "a" / "x.jsonl").write_text("".join(lines[:15]))
    (raw / "a" / "y.jsonl").write_text("".join(lines[15:]))
    cut = build(sampled, raw, tmp_path / "cut", until="tokenizers")
    assert tokenizer_json(cut) == tokenizer_json(whole)


def test_a_sample_of_no_document_is_an_error(raw: Path, tmp_path: Path, recipe: Make, build: Make) -> None:
    none = recipe(tokenizer={"train": {"vocab_size": 300, "sample_bytes": 1}})
    with pytest.raises(RecipeError, match=r"sample_bytes: 1 of .* take no document; raise it"):
        build(none, raw, tmp_path / "store")


def test_a_trained_tokenizer_has_the_end_of_text_first_and_every_byte(
    raw: Path, tmp_path: Path, recipe: Make, build: Make
) -> None:
    built = build(recipe(), raw, tmp_path / "store", until="tokenizers")
    tokenizer = Tokenizer.from_str(tokenizer_json(built).decode())
    assert tokenizer.token_to_id(END_OF_TEXT) == 0
    assert tokenizer.get_vocab_size() == 300
    text = "".join(map(chr, range(0x250))) + "漢字 🙂"
    assert tokenizer.decode(tokenizer.encode(text).ids) == text


@pytest.mark.parametrize("directory", [True, False])
def test_a_given_tokenizer_is_taken_by_content(
    raw: Path, tmp_path: Path, recipe: Make, build: Make, directory: bool
) -> None:
    path = save(tmp_path / "tokenizer.json", words_only("</s>"))
    given = recipe(tokenizer={"path": str(tmp_path if directory else path)})
    built = build(given, raw, tmp_path / "store", until="tokenizers")
    manifest = built.artifact("tokenizers", "given").manifest
    assert manifest.summary == {"vocab_size": 5, "end_of_text": 4}
    assert Tokenizer.from_str(tokenizer_json(built, "given").decode()).to_str() == words_only("</s>").to_str()


def test_the_length_and_padding_of_a_given_tokenizer_do_not_cut_documents(
    raw: Path, tmp_path: Path, recipe: Make, build: Make
) -> None:
    plain, cut = words_only("</s>"), words_only("</s>")
    cut.enable_truncation(4)
    cut.enable_padding(length=64)
    ids = []
    for name, tokenizer in (("plain", plain), ("cut", cut)):
        given = recipe(tokenizer={"path": str(save(tmp_path / f"{name}.json", tokenizer))})
        ids.append(build(given, raw, tmp_path / name).mixture.streams["a"].tokens)
    assert ids[0] == ids[1]


@pytest.mark.parametrize("content", [b"", b"{}", b"not json", b'{"model": {"type": "Unheard"}}', b"\xff\xfe"])
def test_a_broken_tokenizer_is_an_error(raw: Path, tmp_path: Path, recipe: Make, build: Make, content: bytes) -> None:
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(RecipeError, match=r"tokenizer\.json cannot be loaded .*expected a Hugging Face"):
        build(recipe(tokenizer={"path": str(tmp_path)}), raw, tmp_path / "store")


def test_a_tokenizer_that_is_not_there_is_an_error(raw: Path, tmp_path: Path, recipe: Make, build: Make) -> None:
    with pytest.raises(RecipeError, match=r"none/tokenizer\.json does not exist|none does not exist"):
        build(recipe(tokenizer={"path": str(tmp_path / "none")}), raw, tmp_path / "store")


def test_a_tokenizer_without_an_end_of_text_is_an_error(raw: Path, tmp_path: Path, recipe: Make, build: Make) -> None:
    save(tmp_path / "tokenizer.json", words_only())
    with pytest.raises(RecipeError, match="no end-of-text token; add"):
        build(recipe(tokenizer={"path": str(tmp_path)}), raw, tmp_path / "store")


def test_no_text_at_all_is_an_error(tmp_path: Path, write_jsonl: Make, recipe: Make, build: Make) -> None:
    write_jsonl(tmp_path / "raw" / "a" / "x.jsonl", [{"text": "short"}])
    short = recipe(sources={"a": {"files": "a/*"}}, clean={"min_chars": 200})
    with pytest.raises(RecipeError, match="no document is left to train a tokenizer on"):
        build(short, tmp_path / "raw", tmp_path / "store")


def test_a_tokenizer_that_was_changed_after_publishing_is_refused(
    raw: Path, tmp_path: Path, recipe: Make, build: Make
) -> None:
    built = build(recipe(), raw, tmp_path / "store", until="tokenizers")
    path = built.artifact("tokenizers", "bpe").directory / "tokenizer.json"
    data = path.read_text()
    path.write_text(data.replace('"add_prefix_space": false', '"add_prefix_space": true ', 1))
    with pytest.raises(CorruptArtifact, match=r"tokenizer\.json has SHA-256 .*run the same build again"):
        build(recipe(), raw, tmp_path / "store")


CRYSTAL = 22


def test_special_tokens_come_after_the_vocabulary_and_no_text_spells_them(
    raw: Path, tmp_path: Path, recipe: Make, build: Make, write_jsonl: Make
) -> None:
    write_jsonl(raw / "a" / "z.jsonl", [{"text": "<|fim_prefix|> spelt out <|sys_end|>"}])
    made = recipe(tokenizer={"train": {"vocab_size": 300}, "special": "crystal"})
    built = build(made, raw, tmp_path / "store")
    tokenizer = Tokenizer.from_str(tokenizer_json(built).decode())
    added = [tokenizer.id_to_token(300 + i) for i in (0, 3, 17, CRYSTAL - 1)]
    assert added == ["<|fim_prefix|>", "<|fim_pad|>", "<|reponame|>", "<|sys_end|>"]
    assert built.mixture.tokenizer.vocab_size == 322
    fim = built.mixture.tokenizer.fim
    assert (fim.prefix, fim.middle, fim.suffix, fim.pad) == (300, 301, 302, 303)
    stream = open_streams(built.published[0])["a"]
    assert stream.read(0, stream.tokens).max() < 300


def test_special_tokens_may_be_named_and_are_not_ordinary_ones(
    raw: Path, tmp_path: Path, recipe: Make, build: Make
) -> None:
    named = recipe(tokenizer={"train": {"vocab_size": 300}, "special": ["<x>", "<y>"]})
    built = build(named, raw, tmp_path / "store", until="tokenizers")
    tokenizer = Tokenizer.from_str(tokenizer_json(built).decode())
    assert [tokenizer.token_to_id(name) for name in ("<x>", "<y>")] == [300, 301]
    ordinary = recipe(tokenizer={"train": {"vocab_size": 300}, "special": ["a"]})
    with pytest.raises(RecipeError, match="'a' is an ordinary token of this vocabulary"):
        build(ordinary, raw, tmp_path / "other", until="tokenizers")


def test_special_tokens_come_after_ids_that_have_holes_and_move_none(
    raw: Path, tmp_path: Path, recipe: Make, build: Make
) -> None:
    vocabulary = {"[UNK]": 0, "a": 1, "b": 5, "c": 9}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    save(tmp_path / "tokenizer.json", tokenizer)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<y>"}))
    made = recipe(tokenizer={"path": str(tmp_path), "special": ["<x>", "a b", "<y>"]})
    built = build(made, raw, tmp_path / "store")
    found = Tokenizer.from_str(tokenizer_json(built, "given").decode())
    assert found.get_vocab() == vocabulary | {"<x>": 10, "a b": 11, "<y>": 12}
    assert (built.mixture.tokenizer.vocab_size, built.mixture.tokenizer.end_of_text) == (13, 12)
    assert found.encode("a b c <x>c", add_special_tokens=False).ids == [11, 9, 10, 9]
    found.encode_special_tokens = True
    assert found.encode("a b <y>", add_special_tokens=False).ids == [1, 5, 0, 0, 0]


def test_the_end_of_text_that_a_given_tokenizer_declares_is_used(
    raw: Path, tmp_path: Path, recipe: Make, build: Make
) -> None:
    save(tmp_path / "tokenizer.json", words_only("</s>", "[END]"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": {"content": "[END]"}}))
    built = build(recipe(tokenizer={"path": str(tmp_path)}), raw, tmp_path / "store")
    assert built.mixture.tokenizer.end_of_text == 5
    stream = open_streams(built.published[0])["a"]
    assert stream.read(stream.tokens - 1, 1).tolist() == [5]


def test_recipes_that_differ_in_their_phases_share_all_but_the_mixture(
    raw: Path, tmp_path: Path, recipe: Make, build: Make
) -> None:
    first = build(recipe(holdout={"fraction": 0.1}), raw, tmp_path / "store")
    phases = {"p": {"epochs": {"a": 2, "b": 1}}}
    second = build(recipe(name="other", phases=phases, holdout={"fraction": 0.1}), raw, tmp_path / "store")
    assert second.mixture.inputs == first.mixture.inputs
    assert second.id != first.id
