"""What 4 bits cost: the perplexity of held-out text under the weights as they are and as they are exported.

    exp(−mean ln p) per token, each predicted once, in windows of the trained length that begin with the token before;
    p over the vocabulary. The documents are those with the smallest hashes of their ids, up to a number of tokens.

Shapes: B windows, T tokens.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator, Sequence

import torch
from tokenizers import Tokenizer

from manifest.artifact import Opened
from manifest.identity import hash64
from manifest.record import Artifact
from trainer.huggingface import int4
from trainer.huggingface.convert import is_packed
from trainer.loss import window_losses
from trainer.model.decoder import Decoder
from trainer.progress import track

BATCH_TOKENS = 2048
BYTES_PER_TOKEN = 6
"""Text that is read per token that is wanted; short of it, fewer tokens are scored."""


def heldout_tokens(heldout: Opened, tokenizer: Tokenizer, count: int) -> list[list[int]]:
    """The tokens of held-out documents, `count` in all, or as many as there are."""
    found: list[list[int]] = []
    for text in _texts(heldout, count * BYTES_PER_TOKEN):
        if count <= 0:
            break
        found.append(tokenizer.encode(text, add_special_tokens=False).ids[:count])
        count -= len(found[-1])
    return [tokens for tokens in found if tokens]


def _texts(heldout: Opened, enough_bytes: int) -> list[str]:
    """The documents with the smallest hashes that have so many bytes. Not many more are in memory at once."""
    import pyarrow.parquet as pq  # only here, and only for exports of 4 bits

    record = heldout.manifest
    assert isinstance(record, Artifact)
    kept: list[tuple[int, str, str]] = []
    size = 0
    for shard in record.shards:
        if not shard.path.startswith("heldout-"):
            continue
        for batch in pq.ParquetFile(heldout.directory / shard.path).iter_batches(256, columns=["id", "text"]):
            for row in batch.to_pylist():
                heapq.heappush(kept, (-hash64(row["id"]), row["id"], row["text"]))
                size += len(row["text"].encode())
                while size - len(kept[0][2].encode()) >= enough_bytes:
                    size -= len(heapq.heappop(kept)[2].encode())
    return [text for _, _, text in sorted(kept, reverse=True)]


@torch.inference_mode()
def perplexity(decoder: Decoder, documents: Sequence[Sequence[int]], *, end_of_text: int, length: int) -> float:
    """exp of the mean cross-entropy in nats over all tokens of the documents."""
    nats = torch.zeros((), dtype=torch.float64)
    found = list(_batches(documents, end_of_text, length))
    for batch in track(found, label="perplexity", total=len(found), unit="batches"):
        widest = max(map(len, batch))
        tokens_BT = torch.tensor([[*row, *[row[0]] * (widest - len(row))] for row in batch])
        real_BT = torch.arange(1, widest) < torch.tensor([len(row) for row in batch])[:, None]
        logits_BTV = decoder(tokens_BT[:, :-1])[..., : decoder.shape.vocab_size]
        nats += window_losses(logits_BTV, tokens_BT[:, 1:], real_BT.float()).double().sum()
    return math.exp(float(nats) / sum(map(len, documents)))


def _batches(documents: Sequence[Sequence[int]], end_of_text: int, length: int) -> Iterator[list[list[int]]]:
    """Windows of at most `length` tokens, of like length together; padding goes to the right, where no one looks."""
    windows = []
    for tokens in documents:
        row = [end_of_text, *tokens]
        windows += [row[first : first + length] for first in range(0, len(tokens), length - 1)]
    windows.sort(key=len, reverse=True)
    while windows:
        count = max(1, BATCH_TOKENS // len(windows[0]))
        yield windows[:count]
        windows = windows[count:]


@torch.no_grad()
def round_to_int4(decoder: Decoder, dtype: torch.dtype = torch.float32) -> None:
    """Gives a decoder the weights that an export of 4 bits has; dtype: of those that stay whole."""
    size = int4.group_size(decoder.shape)
    for name, parameter in decoder.named_parameters():
        if is_packed(name):
            whole = torch.nn.functional.pad(parameter, (0, -parameter.shape[1] % size))
            parameter.copy_(int4.unpack(*int4.pack(whole, size))[:, : parameter.shape[1]])
        else:
            parameter.copy_(parameter.to(dtype))
