"""A byte-level BPE, trained on the deduplicated documents of a build.

The training sample is chosen by a hash of the documents' ids, so it does not depend on files or workers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import pyarrow as pa
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from dataproc.documents import ShardWriter, batches
from dataproc.recipe.tokenizer import TrainTokenizer
from dataproc.stage import Draft, Made
from dataproc.vocab.files import END_OF_TEXT, publish
from dataproc.vocab.sample import limit_of, sampled
from dataproc.workers import Done, Workers
from manifest.errors import RecipeError

STAGE = "tokenizer/1"
SAMPLE = pa.schema([("text", pa.large_string())])
SAMPLES = "sample-*.parquet"


def train(
    shards: Sequence[Path],
    text_bytes: int,
    recipe: TrainTokenizer,
    special: str | Sequence[str],
    *,
    workers: Workers,
    draft: Draft,
) -> Made:
    """The stage, for a trained tokenizer. text_bytes: of all documents in `shards`."""
    workers.map(
        partial(_sample, limit=limit_of(recipe.sample_bytes, text_bytes), out=draft.scratch),
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
    return publish(tokenizer, special, draft=draft)


def _sample(numbered: tuple[int, Path], *, limit: int, out: Path) -> Done:
    number, shard = numbered
    writer = ShardWriter(out, f"sample-{number:05d}", SAMPLE)
    for batch in sampled(shard, limit):
        writer.write(batch)
    writer.close()
    return Done()


def _texts(directory: Path) -> Iterator[list[str]]:
    for shard in sorted(directory.glob(SAMPLES)):
        for batch in batches(shard):
            yield batch["text"].to_pylist()
