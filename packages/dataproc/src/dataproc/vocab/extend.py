"""A tokenizer that is there, and documents in a new script → the same tokenizer with tokens for that script.

out: tokenizers/extended or tokenizers/replaced: tokenizer.json, tokenizer_config.json, added.json (manifest.added)

New merges come after the base's, and each makes a token that holds characters of the script. So a text without them
has the ids that it had.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dataproc import progress
from dataproc.documents import file_shard
from dataproc.recipe.tokenizer import ExtendTokenizer, ReplaceTokens
from dataproc.stage import Draft, Made
from dataproc.vocab import words
from dataproc.vocab.base import Base, read_base
from dataproc.vocab.files import publish
from dataproc.vocab.joining import Joining
from dataproc.vocab.merges import Merging, New, Words
from dataproc.vocab.replace import Spared, spare
from dataproc.vocab.sample import limit_of
from dataproc.vocab.scripts import CODES, LATIN, SHARED, UNKNOWN, code_of, letters_by_script, names_of
from dataproc.vocab.special import names_of as special_names
from dataproc.vocab.writing import edited
from dataproc.workers import Workers
from manifest.added import ADDED, Added, GivenUp, NewToken, vocabulary_digest
from manifest.errors import RecipeError

STAGE = "extend/1"
SHARE = 0.1  # of the letters, that a script must have to be taken unasked


@dataclass(frozen=True)
class Documents:
    """Shards of documents, and the bytes of their texts."""

    shards: tuple[Path, ...]
    text_bytes: int


@dataclass(frozen=True)
class Asked:
    """What is asked of a base. where: the part of the recipe that asks. end: what closes a text, where the base's
    directory declares that.
    """

    where: str
    recipe: ExtendTokenizer
    base: Base
    end: str | None
    special: str | Sequence[str]


def extend(asked: Asked, on: Documents, everything: Documents, *, workers: Workers, draft: Draft) -> Made:
    """The stage. on: what new tokens are learned from. everything: the build's documents, which say what can be spared.

    Raises RecipeError: no sample, no such script, not enough tokens to be found.
    """
    recipe, base, sources = asked.recipe, asked.base, ", ".join(asked.recipe.on)
    limit = limit_of(recipe.sample_bytes, on.text_bytes)
    scripts = _scripts(asked, on, limit, workers, draft)
    spared = _spared(asked, everything, workers, draft)
    ids = sorted(spared.ids) if spared.ids else range(base.size, base.size + recipe.add)
    file = _write(draft, "start", spared.content)
    start = read_base(file, "tokenizer")
    joining = Joining(scripts, by_kind=not base.byte_level)
    found = words.count_words(on.shards, file, joining, limit, workers=workers, draft=draft)
    if found is None:
        raise RecipeError(
            f"{asked.where}: the sample of {sources} ({min(recipe.sample_bytes, on.text_bytes):,} bytes) has no text "
            f"in {' or '.join(names_of(scripts))} script; raise sample_bytes, or name another script or other sources"
        )
    merging = Merging(found, start.bytes_of, set(start.bytes_of.values()), joining.allows)
    new = list(progress.track(merging.learn(ids), label="new tokens", total=recipe.add, unit="tokens"))
    if len(new) < recipe.add:
        raise RecipeError(
            f"{asked.where}.add: {recipe.add:,} tokens were asked for, and the sample of {sources} gives {len(new):,} "
            f"that it has twice or more; ask for at most {len(new):,}, or give more text (sample_bytes, on)"
        )
    added = _added(asked, start, scripts, new, merging.uses(ids), spared)
    tokenizer = edited(start, new, special_names(asked.special))
    made = publish(tokenizer, asked.special, draft=draft, end=asked.end)
    (draft.path / ADDED).write_text(added.model_dump_json(indent=1) + "\n", encoding="utf-8")
    return Made(
        (*made.shards, file_shard(draft.path / ADDED, len(new))), {**made.summary, **_summary(added, found, spared)}
    )


def _scripts(asked: Asked, on: Documents, limit: int, workers: Workers, draft: Draft) -> tuple[str, ...]:
    """The codes of the scripts: those named, or those with a SHARE of the letters, the base's own apart."""
    if asked.recipe.script:
        return tuple(sorted({code_of(name) for name in asked.recipe.script}))
    texts = [data.decode("utf-8", "ignore") for data in asked.base.bytes_of.values()]
    known = _counts(letters_by_script(texts).tolist())
    own = max(known, key=lambda code: known[code], default=LATIN)
    there = _counts(words.count_letters(on.shards, limit, workers=workers, draft=draft))
    other = {code: count for code, count in there.items() if code != own and count >= SHARE * sum(there.values())}
    sources = ", ".join(asked.recipe.on)
    if not other:
        raise RecipeError(
            f"{asked.where}.on: {sources} has hardly a letter that is not {names_of([own])[0]}, the base's own script; "
            "give sources in another script, or name the script (script: Arabic)"
        )
    chosen = tuple(sorted(other))
    share = sum(other.values()) / sum(there.values())
    progress.say(f"script: {', '.join(names_of(chosen))} ({share:.0%} of the letters of {sources})")
    return chosen


def _counts(letters: Sequence[int]) -> dict[str, int]:
    return {code: count for code, count in zip(CODES, letters, strict=True) if count and code not in (*SHARED, UNKNOWN)}


def _spared(asked: Asked, everything: Documents, workers: Workers, draft: Draft) -> Spared:
    """What the new tokens take the ids of: nothing, unless the vocabulary is to keep its size."""
    if not isinstance(asked.recipe, ReplaceTokens):
        return Spared(asked.base.content, (), {}, 0)
    limit = limit_of(asked.recipe.sample_bytes, everything.text_bytes)
    file = _write(draft, "base", asked.base.content)
    usage = words.count_usage(everything.shards, file, limit, workers=workers, draft=draft)
    return spare(asked.base, usage, asked.recipe.add)


def _write(draft: Draft, name: str, content: object) -> Path:
    """A tokenizer.json for the workers."""
    file = draft.scratch / f"{name}.json"
    file.write_text(json.dumps(content), encoding="utf-8")
    return file


def _added(
    asked: Asked, start: Base, scripts: tuple[str, ...], new: Sequence[New], uses: Sequence[int], spared: Spared
) -> Added:
    pieces: dict[int, tuple[int, ...]] = {}
    fallback = {byte: number for number, byte in start.fallback.items()}
    for token in new:
        if token.right < 0:
            pieces[token.id] = tuple(fallback[byte] for byte in token.data)
        else:
            pieces[token.id] = tuple(n for part in (token.left, token.right) for n in pieces.get(part, (part,)))
    names = {number: token for token, number in asked.base.vocab.items()}
    count = dict(zip([token.id for token in new], uses, strict=True))
    return Added(
        base_size=asked.base.size,
        base=vocabulary_digest(asked.base.vocab),
        scripts=tuple(names_of(scripts)),
        tokens=tuple(NewToken(id=t.id, token=start.name(t.data), pieces=pieces[t.id], count=count[t.id]) for t in new),
        replaced=tuple(GivenUp(id=n, token=names[n], count=spared.uses[n]) for n in spared.ids),
    )


def _summary(added: Added, found: Words, spared: Spared) -> dict[str, object]:
    lost = {"replaced": len(added.replaced), "replaced_share": round(spared.share, 6)} if added.replaced else {}
    return {
        "added": len(added.tokens),
        "silent": added.silent,
        "scripts": list(added.scripts),
        "base_size": added.base_size,
        "sample_words": int(found.counts.sum()),
        **lost,
    }
