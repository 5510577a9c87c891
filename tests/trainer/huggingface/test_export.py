"""`trainer export`: what is published, what it costs, and what it refuses."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.evalkit.conftest import make_checkpoint, make_mixture
from torch.nn import functional
from transformers import PreTrainedTokenizerFast

from manifest.artifact import Opened, open_artifact, resolve, verify
from manifest.errors import ArtifactError, InputError, WinnowError
from manifest.identity import hash64
from manifest.lineage import lineage
from manifest.mixture import Mixture
from manifest.record import Artifact
from trainer.checkpoint import load_model
from trainer.huggingface.export import ExportOptions, export, require_options
from trainer.huggingface.perplexity import heldout_tokens, round_to_int4
from trainer.huggingface.read import read_hf
from trainer.huggingface.source import heldout_of
from trainer.tokenizer import open_tokenizer


@pytest.fixture(scope="module")
def mixture(tmp_path_factory: pytest.TempPathFactory) -> Opened:
    return make_mixture(tmp_path_factory.mktemp("export"))


@pytest.fixture(scope="module")
def checkpoint(mixture: Opened) -> Path:
    return make_checkpoint(mixture, 11, seed=3)


@pytest.fixture
def own_store(mixture: Opened, checkpoint: Path, tmp_path: Path) -> Path:
    """The checkpoint in a copy of the store, which a test may harm."""
    store = checkpoint.parents[3]
    shutil.copytree(store, tmp_path / "store")
    return tmp_path / "store" / checkpoint.relative_to(store)


def options(checkpoint: Path, out: Path, **changes: Any) -> ExportOptions:
    return ExportOptions(checkpoint=str(checkpoint), out=out, **changes)


def test_an_export_has_model_tokenizer_card_and_lineage(mixture: Opened, checkpoint: Path, tmp_path: Path) -> None:
    opened = export(options(checkpoint, tmp_path / "out"))
    assert verify(opened.uri) > 0
    decoder, record = load_model(checkpoint)
    read = read_hf(tmp_path / "out")
    assert read.shape == decoder.shape
    for name, value in read.tensors():
        assert torch.equal(value, decoder.get_parameter(name)), name
    ours = open_tokenizer(mixture)
    theirs = PreTrainedTokenizerFast.from_pretrained(tmp_path / "out")
    text = "α12 c7 no such words ☃"
    assert theirs(text)["input_ids"] == ours.encode(text).ids
    assert theirs.eos_token_id == read_config(tmp_path / "out")["eos_token_id"]
    assert record.run in (tmp_path / "out" / "README.md").read_text()
    kinds = {node.kind for node in nodes(lineage(opened.uri))}
    assert {"export", "checkpoint", "mixture", "raw"} <= kinds
    assert not list(tmp_path.glob(".*"))


def nodes(node: Any) -> list[Any]:
    return [node, *(below for child in node.children for below in nodes(child))]


def read_config(directory: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((directory / "config.json").read_text())
    return content


def test_the_same_command_again_keeps_the_export(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = export(options(checkpoint, tmp_path / "out"))
    before = (tmp_path / "out" / "model.safetensors").stat().st_mtime_ns
    assert export(options(checkpoint, tmp_path / "out")).manifest == first.manifest
    assert (tmp_path / "out" / "model.safetensors").stat().st_mtime_ns == before
    elsewhere = export(options(checkpoint, tmp_path / "other"))
    assert elsewhere.manifest.id == first.manifest.id  # identity is content, wherever it lies


def test_what_a_killed_attempt_left_is_not_in_the_export(checkpoint: Path, tmp_path: Path) -> None:
    left = tmp_path / ".out.draft"
    left.mkdir()
    (left / "model-00001-of-00009.safetensors").write_bytes(b"half")
    export(options(checkpoint, tmp_path / "out"))
    assert not left.exists()
    assert not list((tmp_path / "out").glob("model-*"))


def test_half_precision_is_the_nearest_number(checkpoint: Path, tmp_path: Path) -> None:
    export(options(checkpoint, tmp_path / "out", dtype="bfloat16"))
    found = load_file(tmp_path / "out" / "model.safetensors")["transformer.wte.weight"]
    expected = load_model(checkpoint)[0].embedding.weight.detach()[: len(found)]
    assert torch.equal(found, expected.bfloat16())
    assert read_config(tmp_path / "out")["dtype"] == "bfloat16"


def test_four_bits_report_the_perplexity_that_they_cost(mixture: Opened, checkpoint: Path, tmp_path: Path) -> None:
    opened = export(options(checkpoint, tmp_path / "out", bits=4, heldout_tokens=700))
    assert opened.manifest.producer is not None
    measured = opened.manifest.producer.measured
    decoder, record = load_model(checkpoint)
    paces = record.timeline.paces
    assert [(pace.seq_len, pace.first_step < record.step) for pace in paces] == [(16, True), (32, False)]
    window = 16  # of the phase that it has come to
    documents = chosen(mixture, 700)
    assert measured["heldout_tokens"] == 700
    end_of_text = mixture_record(mixture).tokenizer.end_of_text
    assert measured["perplexity_before"] == pytest.approx(brute_force(decoder, documents, end_of_text, window), 1e-5)
    round_to_int4(decoder)
    assert measured["perplexity"] == pytest.approx(brute_force(decoder, documents, end_of_text, window), 1e-5)
    assert measured["perplexity"] != measured["perplexity_before"]
    verify(checkpoint)  # rounding was done on a copy


def mixture_record(mixture: Opened) -> Mixture:
    assert isinstance(mixture.manifest, Mixture)
    return mixture.manifest


def chosen(mixture: Opened, count: int) -> list[list[int]]:
    """The first `count` tokens of all held-out documents in order of the hashes of their ids."""
    import pyarrow.parquet as pq

    heldout = heldout_of(mixture)
    assert heldout is not None
    rows = [row for file in heldout.directory.glob("heldout-*") for row in pq.read_table(file).to_pylist()]
    rows.sort(key=lambda row: hash64(row["id"]))
    found: list[list[int]] = []
    for row in rows:
        left = count - sum(map(len, found))
        if left > 0:
            found.append(open_tokenizer(mixture).encode(row["text"]).ids[:left])
    return found


def brute_force(decoder: Any, documents: list[list[int]], end_of_text: int, window: int) -> float:
    """Token by token, without batches and padding."""
    nats = 0.0
    vocab = decoder.shape.vocab_size
    for tokens in documents:
        row = [end_of_text, *tokens]
        for place in range(1, len(row)):
            begin = (place - 1) // (window - 1) * (window - 1)
            with torch.no_grad():
                logits = decoder(torch.tensor([row[begin:place]]))[0, -1, :vocab]
            nats += float(functional.cross_entropy(logits, torch.tensor(row[place])))
    return math.exp(nats / sum(map(len, documents)))


def test_as_many_documents_are_read_as_there_are(mixture: Opened) -> None:
    heldout = heldout_of(mixture)
    assert heldout is not None
    tokenizer = open_tokenizer(mixture)
    assert heldout_tokens(heldout, tokenizer, 300) == chosen(mixture, 300)
    assert heldout_tokens(heldout, tokenizer, 10**6) == chosen(mixture, 10**6)


def lose(checkpoint: Path, kind: str) -> None:
    mixture = next((checkpoint.parents[3] / "mixtures").iterdir())
    record = mixture_record(open_artifact(mixture))
    uri = {"mixture": ".", "tokenizer": record.tokenizer.uri, "heldout": record.heldout.uri if record.heldout else ""}
    shutil.rmtree(resolve(str(mixture), uri[kind]))


def damage(checkpoint: Path) -> None:
    file = checkpoint / "weights-00000.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


HARMED: list[tuple[Callable[[Path], None], dict[str, Any], str]] = [
    (lambda c: lose(c, "mixture"), {}, "the mixture of .* is not there; .*--without-tokenizer"),
    (lambda c: lose(c, "tokenizer"), {}, "there is no tokenizer; .*--without-tokenizer"),
    (lambda c: lose(c, "heldout"), {"bits": 4}, "the heldout of .* is not there; .*--heldout-tokens 0"),
    (damage, {}, "weights-00000.safetensors has SHA-256"),
    (lambda c: (c / "weights-00000.safetensors").unlink(), {}, "weights-00000.safetensors is missing"),
    (lambda c: (c / "manifest.json").unlink(), {}, "has no manifest.json, so it is not a published artifact"),
]


@pytest.mark.parametrize(("harm", "changes", "said"), HARMED)
def test_what_cannot_be_exported_says_why_and_leaves_nothing(
    harm: Callable[[Path], None], changes: dict[str, Any], said: str, own_store: Path, tmp_path: Path
) -> None:
    harm(own_store)
    with pytest.raises(ArtifactError, match=said):
        export(options(own_store, tmp_path / "out", **changes))
    assert not (tmp_path / "out").exists()


def test_without_its_mixture_a_model_goes_without_tokenizer(own_store: Path, tmp_path: Path) -> None:
    lose(own_store, "mixture")
    opened = export(options(own_store, tmp_path / "out", tokenizer=False, bits=4, heldout_tokens=0))
    assert isinstance(opened.manifest, Artifact)
    assert "tokenizer.json" not in {shard.path for shard in opened.manifest.shards}
    assert set(opened.manifest.inputs) == {"checkpoint"}


def test_a_run_or_a_mixture_is_no_checkpoint(mixture: Opened, own_store: Path, tmp_path: Path) -> None:
    (own_store.parents[1] / "run.json").write_text("{}")
    with pytest.raises(ArtifactError, match=f"is a run; give one of its checkpoints, such as {own_store}"):
        export(options(own_store.parents[1], tmp_path / "out"))
    with pytest.raises(ArtifactError, match="expected a checkpoint"):
        export(options(Path(mixture.uri), tmp_path / "out"))


def test_a_bare_hugging_face_directory_is_told_how_to_become_a_checkpoint(tmp_path: Path) -> None:
    bare = tmp_path / "llama"
    bare.mkdir()
    (bare / "config.json").write_text("{}")
    with pytest.raises(
        ArtifactError, match=r"is a Hugging Face directory; give a checkpoint\. Step 0 of a run from it"
    ):
        export(options(bare, tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_nothing_is_written_into_what_is_there(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="holds other files; give a directory that is new or empty"):
        export(options(checkpoint, tmp_path / "full"))
    (tmp_path / "file").write_text("mine")
    with pytest.raises(WinnowError, match="--out"):
        export(options(checkpoint, tmp_path / "file"))
    (tmp_path / "empty").mkdir()
    export(options(checkpoint, tmp_path / "empty"))
    with pytest.raises(InputError, match="holds another export"):
        export(options(checkpoint, tmp_path / "empty", dtype="bfloat16"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "file", "full"]


@pytest.mark.parametrize(("bits", "dtype", "said"), [(3, "float32", "only 4"), (4, "float16", "use bfloat16")])
def test_bits_that_are_not_there_are_refused(bits: int, dtype: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        require_options(bits, dtype)
