"""`dataproc synth`: raw text + a recipe + a number of documents → a corpus with planted near-duplicates.

    <out>/raw/<source>/*.jsonl.zst   id, text; in order of a hash of the id
    <out>/truth.parquet              id, source, base_id, kind, param: one row per document
    <out>/corpus.json, README.md     what it was made of, counts, the SHA-256 of its text

It depends on the recipe, the raw files, the number of documents and the seed, and on nothing else: every choice has
random numbers of its own, keyed by what it is for. The `base_id` of a base document, and of a template's first member,
is its own id. Raw text has near-duplicates of its own; the truth of what was planted does not know them.
"""

from __future__ import annotations

import shutil
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate, chain, count, islice
from pathlib import Path

from dataproc import progress
from dataproc.raw import RawFile, RawRoot, sha256_of
from dataproc.recipe.sources import Source
from dataproc.synth import describe
from dataproc.synth.chance import chance, weighted
from dataproc.synth.kinds import copy_of
from dataproc.synth.plan import Plan, Planted, plan
from dataproc.synth.pool import Pool, fill
from dataproc.synth.recipe import SynthRecipe
from dataproc.synth.spool import Document, Spool, write_corpus
from dataproc.synth.template import skeleton
from dataproc.synth.texts import base_texts, length
from manifest.errors import InputError

MIN_WORDS = 40  # shorter base documents get no copies: an edit of 0.5 % would be none
POOL_PER_TEXT = 20  # two texts made of spans then share a few percent at most


@dataclass
class Making:
    """A corpus in the making. `texts`: the base texts that the raw files have, the pool's first."""

    recipe: SynthRecipe
    plan: Plan
    seed: int
    pool: Pool
    texts: Iterator[str]
    recombined: int = 0

    def documents(self) -> Iterator[Document]:
        """All documents, each base before its copies."""
        yield from self._templates()
        planted = deque(zip(self.plan.parents, self.plan.copies, strict=True))
        numbers = count()
        due: list[Planted] = []
        last: Document | None = None
        for number, text in enumerate(islice(chain(self.texts, self._recombined()), self.plan.base)):
            base = self._base(number, text)
            yield base
            while planted and planted[0][0] <= number:
                due += planted.popleft()[1]
            if len(base.text.split()) >= MIN_WORDS:
                last = base
                yield from self._copies(base, due, numbers)
                due = []
        if due and last is None:
            raise InputError(f"no base document has {MIN_WORDS} words, so nothing can be planted; give other raw text")
        if last is not None:
            yield from self._copies(last, due, numbers)

    def _base(self, number: int, text: str) -> Document:
        identifier = f"b{number:08d}"
        header = self.recipe.shared_header
        words = 0
        if header.share and chance(self.seed, "header", number).random() < header.share:
            words = header.words
            text = " ".join(self.pool.words(chance(self.seed, "the header"), words)) + "\n\n" + text
        return Document(identifier, text, self._source(identifier), identifier, "base", float(words))

    def _copies(self, base: Document, due: list[Planted], numbers: Iterator[int]) -> Iterator[Document]:
        for (kind, param), number in zip(due, numbers, strict=False):
            rng = chance(self.seed, "copy", number)
            text = copy_of(base.text, kind, param, rng, self.pool)
            identifier = f"c{number:08d}"
            moved = rng.random() < self.recipe.copies.moved
            source = self._source(identifier) if moved else base.source
            yield Document(identifier, text, source, base.id, kind, param)

    def _templates(self) -> Iterator[Document]:
        for number, (template, members) in enumerate(zip(self.recipe.templates, self.plan.members, strict=True)):
            filled_in = skeleton(template, self.pool, chance(self.seed, "template", number))
            for member in range(members):
                identifier = f"t{number}-{member:08d}"
                text = filled_in.member(chance(self.seed, "member", number, member), self.pool)
                source = self._source(identifier)
                yield Document(identifier, text, source, f"t{number}-{0:08d}", "template", float(template.fields))

    def _recombined(self) -> Iterator[str]:
        """Base texts made of spans of the pool, without end."""
        for number in count():
            chars = length(self.recipe.lengths, self.seed, "recombined", number)
            if chars * POOL_PER_TEXT > self.pool.chars:
                raise InputError(
                    f"the raw text holds {self.pool.chars:,} characters in texts long enough; more documents cannot be "
                    f"made of it without near-duplicates that nobody planted. {self.plan.documents:,} documents were "
                    "asked for: give more raw text, fewer --documents, or a smaller lengths.max_chars"
                )
            self.recombined += 1
            yield self.pool.text(chance(self.seed, "spans", number), chars)

    def _source(self, identifier: str) -> str:
        names = list(self.recipe.into)
        return names[weighted(chance(self.seed, "source", identifier), list(accumulate(self.recipe.into.values())))]


def synth(recipe: SynthRecipe, raw: str, *, documents: int, out: Path, seed: int = 0) -> None:
    """Writes the corpus; one that is there and was asked for alike is left as it is.

    Raises InputError: `out` holds something else, there is no text, or too little for so many documents.
    """
    if documents < 1:
        raise InputError(f"--documents {documents}: expected at least 1")
    files = _files(recipe, raw)
    request = describe.request(recipe, documents, seed, [file for _, file in files])
    if describe.is_there(out, request):
        progress.say(f"re-used {out}")
        return
    aside = out.with_name(f".{out.name}.tmp")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        _write(recipe, files, request, aside, seed)
        out.parent.mkdir(parents=True, exist_ok=True)
        aside.replace(out)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _files(recipe: SynthRecipe, raw: str) -> list[tuple[Source, RawFile]]:
    """The raw files with their hashes. A file that two sources name is read once."""
    root = RawRoot(raw)
    found = {file.path: (source, file) for name, source in recipe.sources.items() for file in root.files(name, source)}
    tracked = progress.track(sorted(found), label="hashing raw files", total=len(found))
    return [(found[path][0], sha256_of(found[path][1])) for path in tracked]


def _write(
    recipe: SynthRecipe, files: list[tuple[Source, RawFile]], request: describe.Request, aside: Path, seed: int
) -> None:
    texts = base_texts(files, recipe.lengths, seed)
    pool = fill(texts)
    if not pool.texts:
        raise InputError(
            f"the {len(files):,} raw files hold no text of {recipe.lengths.min_chars} characters or more in the fields "
            f"that the recipe names ({', '.join(sorted({source.text for source, _ in files}))}); correct 'sources', or "
            "give other raw text"
        )
    making = Making(recipe, plan(recipe, request.documents, seed), seed, pool, chain(pool.texts, texts))
    spool = Spool(aside / "spool", request.documents * recipe.lengths.median_chars, seed)
    for document in progress.track(making.documents(), label="documents", total=request.documents, unit="documents"):
        spool.add(document)
    written = write_corpus(spool, aside)
    shutil.rmtree(aside / "spool")
    describe.write(aside, request, written, recombined=making.recombined)
    progress.say(
        f"{recipe.name}: {written.documents:,} documents, {written.text_bytes / 1e6:,.1f} MB of text, "
        f"{making.recombined:,} base documents recombined, sha256 {written.sha256[:12]}"
    )
