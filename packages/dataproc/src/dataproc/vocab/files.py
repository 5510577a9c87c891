"""A tokenizer's files: how they are read, checked and published.

out: tokenizers/<name>: tokenizer.json, tokenizer_config.json (what Hugging Face loads)
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from dataproc.documents import file_shard
from dataproc.stage import Draft, Made
from dataproc.vocab.special import fim_tokens, with_special
from manifest.artifact import open_artifact, read_manifest, resolve
from manifest.errors import RecipeError
from manifest.mixture import Mixture
from manifest.record import MANIFEST

KIND = "tokenizers"
END_OF_TEXT = "<|endoftext|>"
ENDS = (END_OF_TEXT, "</s>", "<|end_of_text|>", "<eos>")
TOKENIZER, CONFIG, SENTENCEPIECE = "tokenizer.json", "tokenizer_config.json", "tokenizer.model"


def given(path: Path, special: str | Sequence[str], *, draft: Draft) -> Made:
    """The stage, for a tokenizer that exists. Raises RecipeError if it cannot be loaded or closes no text."""
    return publish(load(path), special, end=declared_end(path), draft=draft)


def load(path: Path) -> Tokenizer:
    """The tokenizer in a directory (or its tokenizer.json), which then encodes whole texts. Raises RecipeError."""
    file = path / TOKENIZER if path.is_dir() else path
    if not file.is_file():
        hint = ""
        if (path / SENTENCEPIECE).is_file():
            hint = f"; transformers.AutoTokenizer.from_pretrained(…).save_pretrained(…) makes one of {SENTENCEPIECE}"
        raise RecipeError(f"tokenizer: {file} does not exist; give a directory with a {TOKENIZER}{hint}")
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:
        raise RecipeError(
            f"tokenizer: {file} cannot be loaded ({error}); expected a Hugging Face {TOKENIZER}"
        ) from error
    tokenizer.no_truncation()  # a tokenizer.json may carry the length of the model that it came with
    tokenizer.no_padding()
    return tokenizer


def place_of(given: str) -> Path:
    """Where a tokenizer is: a directory or file as it is named, or that of a mixture. Raises InputError."""
    if "://" not in given and not (Path(given) / MANIFEST).is_file():
        return Path(given)
    uri, record = read_manifest(given)
    if isinstance(record, Mixture):
        return open_artifact(resolve(uri, record.tokenizer.uri), KIND).directory
    return open_artifact(uri, KIND).directory


def declared_end(path: Path) -> str | None:
    """What the tokenizer_config.json beside a tokenizer calls its end of text. Raises RecipeError if it is no JSON."""
    file = (path if path.is_dir() else path.parent) / CONFIG
    if not file.is_file():
        return None
    try:
        found: Any = json.loads(file.read_text(encoding="utf-8")).get("eos_token")
    except (ValueError, AttributeError) as error:
        raise RecipeError(f"tokenizer: {file} is no JSON object ({error}); restore it or remove it") from error
    content = found.get("content") if isinstance(found, dict) else found
    return content if isinstance(content, str) else None


def end_of_text(tokenizer: Tokenizer, declared: str | None = None) -> int:
    """The id that closes a document: the declared one, or one of the usual names. Raises RecipeError."""
    for token in (declared, *ENDS) if declared else ENDS:
        found = tokenizer.token_to_id(token)
        if found is not None:
            return int(found)
    raise RecipeError(f"the tokenizer has no end-of-text token; add {END_OF_TEXT} to it")


def size_of(tokenizer: Tokenizer) -> int:
    """One more than the largest id: ids may have holes."""
    return max(tokenizer.get_vocab(with_added_tokens=True).values()) + 1


def publish(tokenizer: Tokenizer, special: str | Sequence[str], *, draft: Draft, end: str | None = None) -> Made:
    """Writes a tokenizer with its special tokens. Raises RecipeError as `with_special` and `end_of_text` do."""
    tokenizer = with_special(tokenizer, special)
    closing = end_of_text(tokenizer, end)
    (draft.path / TOKENIZER).write_text(tokenizer.to_str(pretty=True), encoding="utf-8")
    name = tokenizer.id_to_token(closing)
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": name, "bos_token": name, "unk_token": name}
    (draft.path / CONFIG).write_text(json.dumps(config, indent=2) + "\n")
    size = size_of(tokenizer)
    summary: dict[str, Any] = {"vocab_size": size, "end_of_text": closing}
    fim = fim_tokens(tokenizer)
    if fim is not None:
        summary["fim"] = fim.model_dump()
    return Made(tuple(file_shard(draft.path / file, size) for file in (TOKENIZER, CONFIG)), summary)
