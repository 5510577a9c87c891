"""Estimates against counts of everything."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from tokenizers import Tokenizer, models, pre_tokenizers

from dataproc import estimate as module
from dataproc.estimate import estimate, lines
from dataproc.recipe import DataRecipe
from manifest.errors import DataError

WORDS = [f"{a}{b}{c}" for a in "bdfgkl" for b in "aeiou" for c in "mnprst"]


def texts(count: int, seed: int = 0) -> list[str]:
    """Of 1 to 40 random words."""
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=rng.randint(1, 40))) for _ in range(count)]


def write(file: Path, found: list[str]) -> None:
    """The texts as lines, as their name says."""
    file.parent.mkdir(parents=True, exist_ok=True)
    data = "".join(json.dumps({"text": text}) + "\n" for text in found).encode()
    pack: dict[str, Callable[[bytes], bytes]] = {".gz": gzip.compress, ".zst": zstandard.compress}
    file.write_bytes(pack.get(file.suffix, bytes)(data))


def recipe(tokenizer: dict[str, Any] | None = None, **source: Any) -> DataRecipe:
    return DataRecipe.model_validate(
        {
            "name": "r",
            "sources": {"a": {"files": "a/*", **source}},
            "clean": {"min_chars": 0},
            "tokenizer": tokenizer or {"train": {"vocab_size": 300}},
            "phases": {"p": {"epochs": {"a": 1}}},
            "block_tokens": 16,
        }
    )


def test_a_small_source_is_counted(tmp_path: Path) -> None:
    write(tmp_path / "a" / "0.jsonl", texts(300))
    found = estimate(recipe(), str(tmp_path)).sources["a"]
    size = sum(len(text) for text in texts(300))
    assert (found.files, found.documents, found.exact) == (1, 300, True)
    assert found.tokens == round(size / module.BYTES_PER_TOKEN)


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet"])
def test_a_large_source_is_estimated_from_the_beginnings_of_its_files(tmp_path: Path, suffix: str) -> None:
    sizes = [3000 + 40 * i for i in range(20)]
    for i, size in enumerate(sizes):
        file, found = tmp_path / "a" / f"{i}{suffix}", texts(size, seed=i)
        if suffix == ".parquet":
            file.parent.mkdir(exist_ok=True)
            pq.write_table(pa.table({"text": found}), file, row_group_size=500)
        else:
            write(file, found)
    found_ = estimate(recipe(), str(tmp_path)).sources["a"]
    assert not found_.exact
    assert found_.files == 20
    assert found_.documents == pytest.approx(sum(sizes), rel=0.15)


def test_plain_text_is_a_document_per_file(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for i, text in enumerate(texts(50)):
        (tmp_path / "a" / f"{i}.txt").write_text(text)
    found = estimate(recipe(), str(tmp_path)).sources["a"]
    assert (found.documents, found.exact) == (50, False)


def test_a_tokenizer_that_is_there_says_how_many_tokens(tmp_path: Path) -> None:
    write(tmp_path / "a" / "0.jsonl", texts(300))
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate([*WORDS, "<unk>"])}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    found = estimate(recipe({"path": str(tmp_path / "tokenizer.json")}), str(tmp_path))
    assert found.sources["a"].tokens == sum(len(text.split()) for text in texts(300))
    assert found.warnings == ()


def test_of_a_large_sample_a_part_is_tokenized(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a" / "0.jsonl", texts(400))
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate([*WORDS, "<unk>"])}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    asked = recipe({"path": str(tmp_path / "tokenizer.json")})
    all_of_it = estimate(asked, str(tmp_path)).sources["a"]
    monkeypatch.setattr(module, "SAMPLE_TOKENIZED", all_of_it.text_bytes // 10)
    tenth = estimate(asked, str(tmp_path)).sources["a"]
    assert tenth.tokens == pytest.approx(all_of_it.tokens, rel=0.1)
    assert tenth.tokens != all_of_it.tokens
    assert module._spread(["a" * 900, *("b" * 20 for _ in range(99))], 500) == [
        "a" * 20,
        *("b" * 20 for _ in range(24)),
    ]


def test_what_would_not_become_a_document_is_told(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    rows = [{"text": "long enough"}, {"text": "x"}, {"body": "elsewhere"}, {"text": 5}]
    (tmp_path / "a" / "0.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\nno json\n")
    found = estimate(recipe(min_chars=5), str(tmp_path))
    assert found.sources["a"].documents == 1
    bad, short, _ = found.warnings
    assert bad == "3 of 5 records read of source 'a' have no text under 'text', and would be set aside"
    assert short.startswith("1 of 5 records read of source 'a' are shorter than min_chars 5")
    assert next(iter(lines(found))).startswith("a: 1 files of 0.0 MB; 1 documents before dedup")


def test_no_files_and_damaged_files_are_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no file matches"):
        estimate(recipe(), str(tmp_path))
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "0.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(DataError, match="not a whole Parquet file"):
        estimate(recipe(), str(tmp_path))
