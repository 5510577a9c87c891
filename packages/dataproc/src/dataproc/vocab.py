"""The tokenizer of a build: a byte-level BPE trained on the deduplicated documents, or a given one.

in:  deduped/<source>…      out: tokenizers/<name>: tokenizer.json, tokenizer_config.json (what Hugging Face loads)

The training sample is chosen by a hash of the documents' ids, so it does not depend on files or workers.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import pyarrow as pa
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from dataproc.documents import ShardWriter, batches, file_sha256
from dataproc.recipe.tokenizer import TrainTokenizer
from dataproc.stage import Draft, Made
from dataproc.workers import Done, Workers
from manifest.errors import RecipeError
from manifest.identity import hash64
from manifest.record import Shard

STAGE = "tokenizer/1"
END_OF_TEXT = "<|endoftext|>"
SAMPLE = pa.schema([("text", pa.large_string())])
SAMPLES = "sample-*.parquet"
TOKENIZER, CONFIG = "tokenizer.json", "tokenizer_config.json"


def train(shards: Sequence[Path], text_bytes: int, recipe: TrainTokenizer, *, workers: Workers, draft: Draft) -> Made:
    """The stage, for a trained tokenizer. text_bytes: of all documents in `shards`."""
    share = min(1.0, recipe.sample_bytes / max(text_bytes, 1))
    workers.map(
        partial(_sample, limit=int(share * 2**64), out=draft.scratch),
        list(enumerate(shards)),
        result=Done,
        notes=draft.notes / "sample",
        label="tokenizer sample",
    )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=recipe.vocab_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    if not any(draft.scratch.glob(SAMPLES)):
        raise RecipeError(
            f"tokenizer.train.sample_bytes: {recipe.sample_bytes:,} of {text_bytes:,} bytes take no document; raise it"
        )
    tokenizer.train_from_iterator(_texts(draft.scratch), trainer)
    return _made(tokenizer, draft)


def given(path: Path, *, draft: Draft) -> Made:
    """The stage, for a tokenizer that exists. Raises RecipeError if it cannot be loaded or closes no text."""
    return _made(load(path), draft)


def load(path: Path) -> Tokenizer:
    """The tokenizer in a directory (or its tokenizer.json), which then encodes whole texts. Raises RecipeError."""
    file = path / TOKENIZER if path.is_dir() else path
    if not file.is_file():
        raise RecipeError(f"tokenizer: {file} does not exist; give a directory with a {TOKENIZER}")
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:
        raise RecipeError(
            f"tokenizer: {file} cannot be loaded ({error}); expected a Hugging Face {TOKENIZER}"
        ) from error
    tokenizer.no_truncation()  # a tokenizer.json may carry the length of the model that it came with
    tokenizer.no_padding()
    return tokenizer


def end_of_text(tokenizer: Tokenizer) -> int:
    """The id that closes a document. Raises RecipeError if the vocabulary has none of the usual names."""
    for token in (END_OF_TEXT, "</s>", "<|end_of_text|>", "<eos>"):
        found = tokenizer.token_to_id(token)
        if found is not None:
            return int(found)
    raise RecipeError(f"the tokenizer has no end-of-text token; add {END_OF_TEXT} to it")


def _made(tokenizer: Tokenizer, draft: Draft) -> Made:
    end = end_of_text(tokenizer)
    (draft.path / TOKENIZER).write_text(tokenizer.to_str(pretty=True), encoding="utf-8")
    name = tokenizer.id_to_token(end)
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": name, "bos_token": name, "unk_token": name}
    (draft.path / CONFIG).write_text(json.dumps(config, indent=2) + "\n")
    shards = tuple(_file(draft.path / file, tokenizer.get_vocab_size()) for file in (TOKENIZER, CONFIG))
    return Made(shards, {"vocab_size": tokenizer.get_vocab_size(), "end_of_text": end})


def _file(path: Path, rows: int) -> Shard:
    sha256 = file_sha256(path)
    return Shard(path=path.name, rows=rows, digest=sha256, bytes=path.stat().st_size, sha256=sha256)


def _sample(numbered: tuple[int, Path], *, limit: int, out: Path) -> Done:
    number, shard = numbered
    writer = ShardWriter(out, f"sample-{number:05d}", SAMPLE)
    for batch in batches(shard, ["id", "text"]):
        chosen = pa.array([hash64(f"tokenizer/{i}") < limit for i in batch["id"].to_pylist()], pa.bool_())
        writer.write(batch.filter(chosen).select(["text"]))
    writer.close()
    return Done()


def _texts(directory: Path) -> Iterator[list[str]]:
    for shard in sorted(directory.glob(SAMPLES)):
        for batch in batches(shard):
            yield batch["text"].to_pylist()
