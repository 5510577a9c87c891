"""Raw files → documents → signatures, and both without what tombstones name."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from dataproc import normalize
from dataproc.dedup import removal, sign
from dataproc.dedup.shingles import HASH
from dataproc.dedup.stones import Stones
from dataproc.identifiers import unique_ids
from dataproc.pipeline.context import Artifacts, Context, Item
from dataproc.raw import RawFile, tasks
from dataproc.stage import Draft, Input, Made, Raw, Request, shard_files, summary_of
from manifest.artifact import Opened


def documents(context: Context, name: str, files: Sequence[RawFile]) -> Item:
    """The documents of a source, with ids that are unique. Raises DataError for files that cannot be read."""
    source = context.recipe.sources[name]
    clean = source.cleaning(context.recipe.clean)
    if context.recipe.drops_short_last:
        clean = clean.model_copy(update={"min_chars": 0})

    def make(draft: Draft) -> Made:
        done = context.build.workers.map(
            partial(normalize.normalize, name=name, source=source, clean=clean, draft=draft.path),
            list(enumerate(tasks(files))),
            result=normalize.Normalized,
            notes=draft.notes / "normalize",
            label=f"documents/{name}",
        )
        shards = tuple(shard for task in done for shard in task.shards)
        counts = {key: sum(getattr(task, key) for task in done) for key in normalize.counted(source)}
        bad = [draft.path / shard.path for shard in shards if shard.path.startswith("quarantine")]
        normalize.check_unreadable(name, counts, bad, clean)
        return Made(unique_ids(name, source, shards, workers=context.build.workers, draft=draft), counts)

    inputs: dict[str, Input] = {f.path: Raw(f.path, f.sha256, f.uri) for f in files}
    shaping = clean.model_dump(mode="json", exclude={"max_unreadable"})
    config = {"source": name, "text": source.text, "id": source.id, "clean": shaping, **source.answers}
    request = Request("documents", name, normalize.STAGE, config, inputs, ("ftfy", "orjson", "pyarrow"))
    made = context.build.make(request, make)
    if isinstance(made, Opened):  # also where it was published with a higher limit
        normalize.check_unreadable(name, summary_of(made), shard_files(made, "quarantine"), clean)
    return made


def signatures(context: Context, name: str, documents: Item) -> Item:
    """The signatures of a source."""
    dedup = context.recipe.dedup

    def make(draft: Draft) -> Made:
        assert isinstance(documents, Opened)
        done = context.build.workers.map(
            partial(sign.sign, shingling=context.shingling, permutations=dedup.permutations, draft=draft.path),
            shard_files(documents, "documents"),
            result=sign.Signed,
            notes=draft.notes / "sign",
            label=f"signatures/{name}",
        )
        return Made(tuple(s for d in done for s in d.shards), {"documents": sum(d.documents for d in done)})

    config = {**context.shingles, "permutations": dedup.permutations, "scheme": sign.SCHEME, "hash": HASH}
    return context.build.make(Request("signatures", name, sign.STAGE, config, {"documents": documents}), make)


def without(
    context: Context, documents: Artifacts, signatures: Artifacts, stones: Stones
) -> tuple[Artifacts, Artifacts]:
    """The sources without what falls under the tombstones, as if the raw files had never held it."""
    if not stones:
        return documents, signatures
    sources = [
        removal.Source(name, item, signatures.get(name), content_ids=context.recipe.sources[name].id is None)
        for name, item in documents.items()
    ]
    left = removal.without(sources, stones, context.matching, context.build)
    signed = {source.name: source.signatures for source in left if source.signatures is not None}
    return {source.name: source.documents for source in left}, signed
