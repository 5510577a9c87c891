"""`trainer export --format peft`: the LoRA of a checkpoint alone, as PEFT reads it.

adapter_config.json, adapter_model.safetensors       see peft.py
README.md, manifest.json                             what it is and where it comes from
"""

from __future__ import annotations

import time
from importlib.metadata import version
from pathlib import Path

from manifest.artifact import Opened, open_artifact, relative_uri
from manifest.export import KIND, draft, empty, is_published, listed
from manifest.identity import short
from manifest.record import Artifact, Producer, Reference, digest_of_shards, fingerprint, now
from manifest.store import LocalStore
from trainer.huggingface.convert import conversion
from trainer.huggingface.peft import base_digest, lora_of, write_adapter
from trainer.huggingface.source import Source, open_source
from trainer.progress import say

STAGE = "export-peft/1"
LIBRARIES = ("torch", "safetensors")

_CARD = """---
library_name: peft
tags: [lora, winnow]
---
# {name}

LoRA of rank {rank} (alpha {alpha:g}) beside {matrices} matrices, after {step:,} steps of run `{run}`; checkpoint
`{checkpoint}`. Its base has the digest `{base}`.

```python
from peft import PeftModel
from transformers import AutoModelForCausalLM

model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(BASE), PATH)
```
"""


def export_adapter(checkpoint: str, out: Path, *, dtype: str = "float32") -> Opened:
    """The adapter of a checkpoint at `out`; the one that is there if it is the same.

    Raises ArtifactError: no such checkpoint. InputError: it has no LoRA, its class stacks matrices, or `out` is in use.
    """
    out = out.resolve()
    source = open_source(checkpoint)
    record = source.record
    reference = Reference(kind=record.kind, name=record.name, id=record.id, uri="")
    config = {"dtype": dtype, "format": "peft"}
    asked = fingerprint(STAGE, config=config, inputs={"checkpoint": reference}, libraries=_libraries())
    if is_published(out, asked):
        say(f"{out} is there already")
        return open_artifact(out)
    reference = reference.model_copy(update={"uri": relative_uri(source.opened.uri, str(out))})
    with draft(out) as directory:
        if not is_published(out, asked):  # another process may have published it while this one waited
            _publish(source, config, asked, reference, directory, out)
    return open_artifact(out)


def _publish(
    source: Source, config: dict[str, str], asked: str, reference: Reference, directory: Path, out: Path
) -> None:
    empty(directory)
    began = time.monotonic()
    weight_bytes = _write(source, directory, config["dtype"])
    files = tuple(listed(directory, path.name) for path in sorted(directory.iterdir()))
    made = Artifact(
        kind=KIND,
        name=source.record.run,
        stage=STAGE,
        fingerprint=asked,
        config=config,
        inputs={"checkpoint": reference},
        shards=files,
        digest=digest_of_shards(files),
        producer=Producer(
            program="trainer export",
            version=version("winnow-trainer"),
            libraries=_libraries(),
            measured={"weight_bytes": weight_bytes, "seconds": round(time.monotonic() - began, 3)},
        ),
        created=now(),
    )
    LocalStore(out.parent).publish(out.name, directory, made)
    say(
        f"LoRA alone: {weight_bytes / 1e6:,.1f} MB, where the whole model has "
        f"{4 * source.shape.parameters / 1e6:,.1f} MB in fp32"
    )


def _libraries() -> dict[str, str]:
    return {name: version(name) for name in LIBRARIES}


def _write(source: Source, directory: Path, dtype: str) -> int:
    lora, record = lora_of(source), source.record
    made = conversion(source.shape, dtype=dtype, bits=None, length=source.length, end_of_text=None)
    weight_bytes = write_adapter(source, made, directory)
    page = _CARD.format(
        name=record.name,
        rank=lora.rank,
        alpha=lora.alpha,
        matrices=sum(name.endswith(".lora_a") for name in source.stored.files),
        step=record.step,
        run=record.run,
        checkpoint=short(record.id),
        base=base_digest(source, made),
    )
    (directory / "README.md").write_text(page, encoding="utf-8")
    return weight_bytes
