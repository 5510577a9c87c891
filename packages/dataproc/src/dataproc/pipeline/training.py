"""Deduped documents → tokenizer → tokens → the mixture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dataproc import mix, slices, tokenize
from dataproc.pipeline.context import Artifacts, Context, Item, shards_of
from dataproc.recipe.views import Slice
from dataproc.stage import Draft, Made, Request, producer, summary_of
from dataproc.vocab.files import declared_end, given, load
from dataproc.vocab.special import names_of
from dataproc.vocab.train import STAGE
from dataproc.vocab.train import train as train_bpe
from manifest.artifact import Opened, verify
from manifest.errors import RecipeError
from manifest.identity import short
from manifest.progress import Progress, report
from manifest.record import now

TRAINED, GIVEN = "bpe", "given"
"""The names of tokenizers; recipes that differ in their phases share one."""

LIBRARIES = ("tokenizers",)  # what shapes tokenizers and tokens


def tokenizer_of(context: Context, deduped: Artifacts) -> Item:
    """The tokenizer, trained or given. Raises RecipeError if there is no text to train it on."""
    asked = context.recipe.tokenizer
    special = {"special": list(names_of(asked.special))} if asked.special else {}
    train = asked.train
    if train is None:
        assert asked.path is not None
        path = Path(asked.path)
        end = declared_end(path)
        config = {"tokenizer_json": load(path).to_str(), **({"end_of_text": end} if end else {}), **special}
        request = Request("tokenizers", GIVEN, STAGE, config, {}, LIBRARIES)
        return context.build.make(request, lambda draft: given(path, asked.special, draft=draft))

    def make(draft: Draft) -> Made:
        shards = [shard for item in deduped.values() for shard in shards_of(item, "documents")]
        size = sum(int(summary_of(item)["text_bytes"]) for item in deduped.values())
        if size == 0:
            raise RecipeError("no document is left to train a tokenizer on; the sources are empty after dedup")
        return train_bpe(shards, size, train, asked.special, workers=context.build.workers, draft=draft)

    inputs = {f"deduped/{name}": item for name, item in deduped.items()}
    config = {**train.model_dump(mode="json"), **special}
    request = Request("tokenizers", TRAINED, STAGE, config, inputs, LIBRARIES)
    return context.build.make(request, make)


def tokens_of(context: Context, stream: Slice, deduped: Item, tokenizer: Item) -> Item:
    """The tokens of a stream. deduped: of its source. Raises RecipeError if no document is as its view asks."""
    template = context.recipe.template_of(stream)

    def make(draft: Draft) -> Made:
        assert isinstance(tokenizer, Opened)
        verify(tokenizer.uri)  # one wrong byte here would be wrong in every token
        made = tokenize.tokenize(
            shards_of(deduped, "documents"),
            int(summary_of(deduped)["text_bytes"]),
            tokenizer.directory,
            stream=stream,
            template=template,
            workers=context.build.workers,
            draft=draft,
        )
        if made.summary["documents"] == 0 and summary_of(deduped)["documents"] > 0:
            raise RecipeError(slices.nothing_chosen(stream, shards_of(deduped, "documents")))
        return made

    inputs = {"deduped": deduped, "tokenizer": tokenizer}
    chosen = stream.model_dump(mode="json", exclude_defaults=True, exclude={"template"})
    written = {} if template is None else {"template": template.model_dump(mode="json")}
    config = {**chosen, **written, "shard_text_bytes": tokenize.SHARD_TEXT_BYTES}
    return context.build.make(Request("tokens", stream.source, tokenize.STAGE, config, inputs, LIBRARIES), make)


def mixture_of(
    context: Context, tokens: Artifacts, tokenizer: Item, heldout: Item | None, counts: dict[str, Any]
) -> Item:
    """The mixture, from the streams that have tokens."""
    assert isinstance(tokenizer, Opened)
    assert heldout is None or isinstance(heldout, Opened)
    some = {n: item for n, item in tokens.items() if isinstance(item, Opened) and summary_of(item)["tokens"] > 0}
    report(Progress(stage=f"mixtures/{context.recipe.name}", done=0, total=1, unit="mixtures"))
    base = context.build.store.where("mixtures/any")  # uris depend on the depth only, not on the name
    made = mix.mixture(
        context.recipe, context.gates, tokens=some, tokenizer=tokenizer, heldout=heldout, base=base, summary=counts
    ).identified()
    path = f"mixtures/{made.name}-{short(made.id)}"
    return context.build.publish(path, made.model_copy(update={"producer": producer(()), "created": now()}))
