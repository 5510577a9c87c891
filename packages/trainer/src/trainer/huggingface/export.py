"""`trainer export`: a checkpoint → a directory that transformers loads.

config.json, generation_config.json, model*.safetensors      the model
modeling_winnow.py                                           where no class of transformers expresses it
tokenizer.json, tokenizer_config.json                        its mixture's tokenizer
README.md, manifest.json                                     what it is and where it comes from
"""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from manifest.artifact import Opened, open_artifact, relative_uri
from manifest.errors import InputError
from manifest.export import KIND, draft, empty, is_published, listed
from manifest.mixture import Mixture
from manifest.record import Artifact, Producer, Reference, Shard, digest_of_shards, fingerprint, now
from manifest.store import LocalStore
from trainer.huggingface.card import card
from trainer.huggingface.convert import DTYPES, Conversion, conversion
from trainer.huggingface.names import sizes
from trainer.huggingface.peft import adapter_digest, with_adapter
from trainer.huggingface.perplexity import heldout_tokens, perplexity, round_to_int4
from trainer.huggingface.settings import CONFIG
from trainer.huggingface.source import Source, heldout_of, mixture_of, open_source, tokenizer_of
from trainer.huggingface.weights import write_weights
from trainer.huggingface.winnow import MODELLING_FILE
from trainer.model.decoder import Decoder
from trainer.progress import say
from trainer.tokenizer import FILE, load_tokenizer

STAGE = "export-hf/1"
LIBRARIES = ("torch", "safetensors")
HELDOUT_TOKENS = 65_536
"""How much held-out text 4 bits are judged on by default."""


@dataclass(frozen=True)
class ExportOptions:
    """What is asked for. heldout_tokens: 0 leaves the perplexity out. adapter: PEFT's, to be merged in."""

    checkpoint: str
    out: Path
    bits: int | None = None
    dtype: str = "float32"
    tokenizer: bool = True
    heldout_tokens: int = HELDOUT_TOKENS
    adapter: Path | None = None


@dataclass(frozen=True)
class _Inputs:
    """What the export is made of. mixture, tokenizer: None if none shall go along."""

    source: Source
    made: Conversion
    mixture: Opened | None
    tokenizer: Opened | None


def export(options: ExportOptions) -> Opened:
    """The export of a checkpoint at `out`; the one that is there if it is the same.

    Raises ArtifactError: no such checkpoint, or what goes with it is gone. InputError: `out` is in use.
    """
    out = options.out.resolve()
    inputs = _inputs(options)
    asked = fingerprint(
        STAGE,
        config=_config(options),
        inputs=_references(inputs, base=""),
        libraries={name: version(name) for name in LIBRARIES},
    )
    if is_published(out, asked):
        say(f"{out} is there already")
        return _said(open_artifact(out))
    with draft(out) as directory:
        if not is_published(out, asked):  # another process may have published it while this one waited
            _publish(options, inputs, asked, directory, out)
    return _said(open_artifact(out))


def _publish(options: ExportOptions, inputs: _Inputs, asked: str, directory: Path, out: Path) -> None:
    empty(directory)
    began = time.monotonic()
    weight_bytes = _write(inputs, directory)
    measured = _measured(options, inputs, weight_bytes)
    files = tuple(listed(directory, path.name) for path in sorted(directory.iterdir()))
    record = _record(options, inputs, asked, files, base=str(out))
    producer = _producer(measured | {"seconds": round(time.monotonic() - began, 3)})
    LocalStore(out.parent).publish(out.name, directory, record.model_copy(update={"producer": producer}))


def _inputs(options: ExportOptions) -> _Inputs:
    source = open_source(options.checkpoint)
    needs_mixture = options.tokenizer or (options.bits is not None and options.heldout_tokens > 0)
    mixture = mixture_of(source) if needs_mixture else None
    tokenizer = None if mixture is None else tokenizer_of(mixture)
    made = conversion(
        source.shape,
        dtype=options.dtype,
        bits=options.bits,
        length=source.length,
        end_of_text=None if mixture is None else _end_of_text(mixture),
    )
    if options.adapter is not None:
        source = with_adapter(source, made, options.adapter)
    return _Inputs(source, made, mixture, tokenizer)


def _end_of_text(mixture: Opened) -> int:
    assert isinstance(mixture.manifest, Mixture)
    return mixture.manifest.tokenizer.end_of_text


def _config(options: ExportOptions) -> dict[str, Any]:
    plain = {"bits": options.bits, "dtype": options.dtype, "tokenizer": options.tokenizer}
    return plain if options.adapter is None else plain | {"adapter": adapter_digest(options.adapter)}


def _references(inputs: _Inputs, *, base: str) -> dict[str, Reference]:
    """What the export stands on; uris as seen from the artifact at `base`, or empty without one."""
    return {
        item.manifest.kind: Reference(
            kind=item.manifest.kind,
            name=item.manifest.name,
            id=item.manifest.id,
            uri=relative_uri(item.uri, base) if base else "",
        )
        for item in (inputs.source.opened, inputs.mixture)
        if item is not None
    }


def _write(inputs: _Inputs, directory: Path) -> int:
    """Writes everything but the manifest. Returns the bytes of all tensors."""
    made, source = inputs.made, inputs.source
    weight_bytes = 0

    def counted() -> Any:
        nonlocal weight_bytes
        for name, tensor in made.tensors(source.parameter):
            weight_bytes += tensor.numel() * tensor.element_size()
            yield name, tensor

    write_weights(directory, counted())
    _write_json(directory / CONFIG, made.config())
    if made.end_of_text is not None:
        ends = {"bos_token_id": made.end_of_text, "eos_token_id": made.end_of_text}
        _write_json(directory / "generation_config.json", ends)
    if made.family.multiplies:
        shutil.copyfile(Path(__file__).with_name(MODELLING_FILE), directory / MODELLING_FILE)
    if inputs.tokenizer is not None:
        for entry in inputs.tokenizer.manifest.files():
            shutil.copyfile(inputs.tokenizer.directory / entry.path, directory / entry.path)
    name = None if inputs.mixture is None else inputs.mixture.manifest.name
    page = card(source, made, mixture=name, weight_bytes=weight_bytes, tokenizer=inputs.tokenizer is not None)
    (directory / "README.md").write_text(page, encoding="utf-8")
    return weight_bytes


def _write_json(file: Path, content: dict[str, Any]) -> None:
    file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _measured(options: ExportOptions, inputs: _Inputs, weight_bytes: int) -> dict[str, float | int | str]:
    """Bytes of the tensors before (in fp32) and after; with 4 bits, the perplexity before and after."""
    measured: dict[str, float | int | str] = {
        "weight_bytes_before": 4 * inputs.source.shape.parameters,
        "weight_bytes": weight_bytes,
    }
    if options.bits is None or options.heldout_tokens == 0:
        return measured
    assert inputs.mixture is not None
    assert inputs.tokenizer is not None
    heldout = heldout_of(inputs.mixture)
    record = inputs.tokenizer.manifest
    assert isinstance(record, Artifact)
    tokenizer = load_tokenizer(inputs.tokenizer.directory / FILE, {file.path: file.sha256 for file in record.shards})
    documents = [] if heldout is None else heldout_tokens(heldout, tokenizer, options.heldout_tokens)
    if not documents:
        say(f"no perplexity: mixture {inputs.mixture.manifest.name} has no held-out text")
        return measured
    return measured | _perplexities(inputs, documents)


def _perplexities(inputs: _Inputs, documents: list[list[int]]) -> dict[str, float | int | str]:
    assert inputs.made.end_of_text is not None
    ends = {"end_of_text": inputs.made.end_of_text, "length": inputs.source.length}
    with torch.device("meta"):
        decoder = Decoder(inputs.source.shape)
    weights = {name: inputs.source.parameter(name) for name in sizes(inputs.source.shape)}
    decoder.load_state_dict(weights, assign=True)
    decoder.eval()
    before = perplexity(decoder, documents, **ends)
    round_to_int4(decoder, DTYPES[inputs.made.dtype])
    after = perplexity(decoder, documents, **ends)
    return {"heldout_tokens": sum(map(len, documents)), "perplexity_before": before, "perplexity": after}


def _record(options: ExportOptions, inputs: _Inputs, asked: str, files: tuple[Shard, ...], *, base: str) -> Artifact:
    return Artifact(
        kind=KIND,
        name=inputs.source.record.run,
        stage=STAGE,
        fingerprint=asked,
        config=_config(options),
        inputs=_references(inputs, base=base),
        shards=files,
        digest=digest_of_shards(files),
        summary={"architecture": inputs.made.architecture, "vocab_size": inputs.source.shape.vocab_size},
    ).model_copy(update={"created": now()})


def _producer(measured: dict[str, float | int | str]) -> Producer:
    return Producer(
        program="trainer export",
        version=version("winnow-trainer"),
        libraries={name: version(name) for name in LIBRARIES},
        measured=measured,
    )


def _said(opened: Opened) -> Opened:
    """Says what the export is and what it costs, and passes it on."""
    record = opened.manifest
    assert isinstance(record, Artifact)
    assert record.producer is not None
    measured = record.producer.measured
    before, after = int(measured["weight_bytes_before"]), int(measured["weight_bytes"])
    code = f"with {MODELLING_FILE}" if (opened.directory / MODELLING_FILE).is_file() else "a class of transformers"
    say(f"{record.summary['architecture']}, {code}; weights {before / 1e6:,.1f} MB in fp32, {after / 1e6:,.1f} MB here")
    if "perplexity" in measured:
        was, is_now = float(measured["perplexity_before"]), float(measured["perplexity"])
        say(
            f"perplexity of {measured['heldout_tokens']:,} held-out tokens: {was:.3f}, with {record.config['bits']} "
            f"bits {is_now:.3f} ({is_now / was - 1:+.2%})"
        )
    return opened


def require_options(bits: int | None, dtype: str) -> None:
    """Raises InputError for what an export cannot be asked for."""
    if bits not in (None, 4):
        raise InputError(f"--bits {bits}: only 4 is there, or none for the weights as they are")
    if dtype == "float16" and bits is not None:
        raise InputError("--dtype float16: scales of 4 bits may be too small for it; use bfloat16")
