"""Kernels on real text: `raw/<source>/*.jsonl.zst` below WINNOW_DATA."""

from itertools import islice

import numpy as np
import orjson
import pyarrow as pa
import pytest
import zstandard
from tests.reference import RAW, needs_raw

from dataproc.dedup.cleaning import clean, clean_all
from dataproc.dedup.shingles import Shingling, shingle_hashes

pytestmark = needs_raw


def texts_of(source: str, characters: int) -> list[str]:
    """Documents of each of a source's files in turn, until they have so many characters."""
    texts: list[str] = []
    for path in sorted((RAW / source).glob("*.jsonl.zst")):
        with path.open("rb") as file, zstandard.ZstdDecompressor().stream_reader(file) as stream:
            lines = stream.read(4_000_000).splitlines()[:-1]
        found = (text for line in lines if isinstance(text := orjson.loads(line).get("text"), str))
        texts += islice(found, 300)
        if sum(map(len, texts)) > characters:
            break
    return texts


@pytest.mark.parametrize("source", ["wikipedia", "arabic", "github", "arxiv", "c4"])
def test_real_text_is_cleaned_as_python_does(source: str) -> None:
    texts = texts_of(source, 3_000_000)
    assert sum(not text.isascii() for text in texts) > 3
    assert clean_all(pa.array(texts)).to_pylist() == [clean(text) for text in texts]


@pytest.mark.parametrize("source", ["wikipedia", "arabic", "github"])
@pytest.mark.parametrize("shingling", [Shingling("char", 13), Shingling("word", 5)])
def test_shingles_of_real_text_collide_no_more_than_random_numbers(source: str, shingling: Shingling) -> None:
    cleaned = [clean(text) for text in texts_of(source, 500_000)]
    units = [list(text) if shingling.unit == "char" else text.split() for text in cleaned]
    distinct = {tuple(u[i : i + shingling.n]) for u in units for i in range(len(u) - shingling.n + 1)}
    hashes = np.unique(shingle_hashes(pa.array(cleaned, pa.large_string()), shingling).hashes)
    assert len(hashes) == len(distinct) > 10_000
    expected = len(hashes) ** 2 / 2**33
    for half in (hashes.astype(np.uint32), hashes >> np.uint64(32)):
        assert len(half) - len(np.unique(half)) <= expected + 6 * expected**0.5 + 3
