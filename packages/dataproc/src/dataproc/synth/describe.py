"""What a corpus says of itself: corpus.json for programs, README.md for people, and whether it is the one asked for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dataproc.raw import RawFile
from dataproc.synth.recipe import KINDS, SynthRecipe
from dataproc.synth.spool import Written
from manifest.errors import InputError
from manifest.identity import digest_of

CORPUS = "corpus.json"
VERSION = "synth/1"  # change it with any change of what is written for the same request


@dataclass(frozen=True)
class Request:
    """What was asked for. `digest` is of all of it, the raw files' contents included."""

    recipe: dict[str, Any]
    documents: int
    seed: int
    raw: str
    digest: str


def request(recipe: SynthRecipe, documents: int, seed: int, files: Sequence[RawFile]) -> Request:
    """The request for a corpus over hashed raw files."""
    fields = recipe.model_dump(mode="json")
    raw = digest_of([[file.path, file.sha256] for file in files])
    digest = digest_of([VERSION, fields, documents, seed, raw])
    return Request(fields, documents, seed, raw, digest)


def is_there(out: Path, asked: Request) -> bool:
    """Whether `out` holds the corpus. Raises InputError if it holds anything else."""
    if not out.exists():
        return False
    file = out / CORPUS
    if not file.is_file():
        raise InputError(f"--out {out} exists and is no corpus (it has no {CORPUS}); give a new directory")
    found = json.loads(file.read_bytes())
    if found.get("request") == asked.digest:
        return True
    said = f"{found.get('documents'):,} documents of recipe {found.get('recipe', {}).get('name')!r}"
    raise InputError(
        f"--out {out} holds another corpus ({said}, seed {found.get('seed')}): the recipe, the raw files, "
        "--documents or --seed differ from those asked for. Give another directory, or remove it"
    )


def write(out: Path, asked: Request, written: Written, *, recombined: int) -> None:
    """corpus.json and README.md."""
    facts: dict[str, Any] = {
        "kind": "synth",
        "version": VERSION,
        "request": asked.digest,
        "recipe": asked.recipe,
        "seed": asked.seed,
        "raw": asked.raw,
        "documents": written.documents,
        "text_bytes": written.text_bytes,
        "sha256": written.sha256,
        "recombined": recombined,
        "largest_family": written.largest_family,
        "bytes_per_document": {f"p{q}": int(np.percentile(written.lengths, q)) for q in (1, 10, 50, 90, 99)},
        "kinds": [
            {"kind": kind, "param": param, "documents": count} for (kind, param), count in sorted(written.kinds.items())
        ],
        "sources": {name: {"documents": n, "text_bytes": size} for name, (n, size) in written.sources.items()},
    }
    (out / CORPUS).write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n")
    (out / "README.md").write_text(_readme(facts))


def _readme(facts: dict[str, Any]) -> str:
    sizes = ", ".join(f"{name} {size:,}" for name, size in facts["bytes_per_document"].items())
    recombined = f"{facts['recombined']:,} base documents are spans of others, as the raw text was used up. "
    meanings = {**KINDS, "base": "words of the shared header", "template": "fields that differ"}
    kinds = [f"| {k['kind']} | {k['param']:g} | {meanings[k['kind']]} | {k['documents']:,} |" for k in facts["kinds"]]
    sources = [f"| {n} | {s['documents']:,} | {s['text_bytes'] / 1e6:,.1f} |" for n, s in facts["sources"].items()]
    return f"""# Corpus {facts["recipe"]["name"]}

{facts["documents"]:,} documents, {facts["text_bytes"] / 1e6:,.1f} MB of text (UTF-8), made by `dataproc synth`
({facts["version"]}, seed {facts["seed"]}). Bytes per document: {sizes}.

SHA-256 of [id, source, text] in order of shards: `{facts["sha256"]}`

`raw/<source>/*.jsonl.zst` holds id and text; `truth.parquet` holds id, source, base_id, kind, param.
{recombined if facts["recombined"] else ""}The largest family (a base and its copies, or a template) has \
{facts["largest_family"]:,} documents.
Raw text has near-duplicates of its own, which the truth of what was planted does not list.

| kind | param | which is | documents |
|---|---|---|---|
{chr(10).join(kinds)}

| source | documents | MB |
|---|---|---|
{chr(10).join(sources)}
"""
