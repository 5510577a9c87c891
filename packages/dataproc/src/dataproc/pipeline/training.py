"""Deduped documents → tokenizer → tokens → the mixture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dataproc import mix, slices, tokenize
from dataproc.pipeline.context import Artifacts, Context, Item, shards_of
from dataproc.recipe.tokenizer import ExtendTokenizer, ReplaceTokens, TrainTokenizer
from dataproc.recipe.views import Slice
from dataproc.stage import Draft, Made, Request, producer, summary_of
from dataproc.vocab.base import read_base
from dataproc.vocab.extend import STAGE as GROWTH
from dataproc.vocab.extend import Asked, Documents, extend
from dataproc.vocab.files import declared_end, given, load, place_of
from dataproc.vocab.special import names_of
from dataproc.vocab.train import STAGE
from dataproc.vocab.train import train as train_bpe
from manifest.artifact import Opened, verify
from manifest.errors import RecipeError
from manifest.identity import sha256, short
from manifest.progress import Progress, report
from manifest.record import now

TRAINED, GIVEN, EXTENDED, REPLACED = "bpe", "given", "extended", "replaced"
"""The names of tokenizers; recipes that differ in their phases share one."""

LIBRARIES = ("tokenizers",)  # what shapes tokenizers and tokens
GROWTH_LIBRARIES = ("tokenizers", "fonttools")  # the latter has Unicode's scripts


def tokenizer_of(context: Context, deduped: Artifacts) -> Item:
    """The tokenizer: trained, given, or made from one that is given. Raises RecipeError if there is no text for it, or
    if a view needs tokens that it has not.
    """
    asked = context.recipe.tokenizer
    if asked.train is not None:
        made = _trained(context, asked.train, deduped)
    elif asked.grown is not None:
        made = _grown(context, asked.grown, deduped)
    else:
        made = _given(context)
    if isinstance(made, Opened):
        _check_views(context, made)
    return made


def _special(context: Context) -> dict[str, Any]:
    special = context.recipe.tokenizer.special
    return {"special": list(names_of(special))} if special else {}


def _given(context: Context) -> Item:
    asked = context.recipe.tokenizer
    assert asked.path is not None
    path = Path(asked.path)
    end = declared_end(path)
    config = {
        "tokenizer_json": load(path).to_str(),
        **({"end_of_text": end} if end else {}),
        **_special(context),
    }
    request = Request("tokenizers", GIVEN, STAGE, config, {}, LIBRARIES)
    return context.build.make(request, lambda draft: given(path, asked.special, draft=draft))


def _trained(context: Context, train: TrainTokenizer, deduped: Artifacts) -> Item:
    def make(draft: Draft) -> Made:
        found = _documents(deduped)
        special = context.recipe.tokenizer.special
        return train_bpe(found.shards, found.text_bytes, train, special, workers=context.build.workers, draft=draft)

    inputs = {f"deduped/{name}": item for name, item in deduped.items()}
    config = {**train.model_dump(mode="json"), **_special(context)}
    return context.build.make(Request("tokenizers", TRAINED, STAGE, config, inputs, LIBRARIES), make)


def _grown(context: Context, grown: ExtendTokenizer, deduped: Artifacts) -> Item:
    """A base with new tokens. Its inputs are the sources that they are learned from, or all if it gives some up."""
    where = f"tokenizer.{context.recipe.tokenizer.existing[0]}"
    if grown.base is None:
        raise RecipeError(f"{where} is missing: name the tokenizer in the recipe, or give it with --base")
    path = place_of(grown.base)
    base, end = read_base(path, where), declared_end(path)
    on = {name: item for name, item in deduped.items() if name in grown.on}
    replaces = isinstance(grown, ReplaceTokens)

    def make(draft: Draft) -> Made:
        asked = Asked(where.removesuffix(".base"), grown, base, end, context.recipe.tokenizer.special)
        workers = context.build.workers
        return extend(asked, _documents(on), _documents(deduped), workers=workers, draft=draft)

    config = {
        **grown.model_dump(mode="json", exclude={"base"}),
        "on": list(on),
        "base": sha256(base.tokenizer.to_str().encode()),
        **({"end_of_text": end} if end else {}),
        **_special(context),
    }
    inputs = {f"deduped/{name}": item for name, item in (deduped if replaces else on).items()}
    name = REPLACED if replaces else EXTENDED
    return context.build.make(Request("tokenizers", name, GROWTH, config, inputs, GROWTH_LIBRARIES), make)


def _documents(deduped: Artifacts) -> Documents:
    """Raises RecipeError if there is no text."""
    shards = tuple(shard for item in deduped.values() for shard in shards_of(item, "documents"))
    size = sum(int(summary_of(item)["text_bytes"]) for item in deduped.values())
    if size == 0:
        raise RecipeError("no document is left to train a tokenizer on; the sources are empty after dedup")
    return Documents(shards, size)


def _check_views(context: Context, tokenizer: Opened) -> None:
    """Raises RecipeError if a view rearranges texts and the tokenizer has no tokens to mark that."""
    if "fim" in summary_of(tokenizer):
        return
    for name in context.recipe.drawn():
        if context.recipe.view(name).fim is not None:
            raise RecipeError(
                f"views.{name}.fim: the tokenizer has no tokens for fill-in-the-middle ({', '.join(names_of('fim'))}); "
                "add them with tokenizer: {special: fim}, or take one that has them"
            )


def tokens_of(context: Context, name: str, stream: Slice, deduped: Item, tokenizer: Item) -> Item:
    """The tokens of stream `name`. deduped: of its source. Raises RecipeError if no document is as its view asks."""
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
    request = Request("tokens", stream.source, tokenize.STAGE, config, inputs, LIBRARIES, "" if stream.whole else name)
    return context.build.make(request, make)


def mixture_of(
    context: Context,
    tokens: Artifacts,
    tokenizer: Item,
    heldout: Item | None,
    contamination: Item | None,
    counts: dict[str, Any],
) -> Item:
    """The mixture, from the streams that have tokens."""
    assert isinstance(tokenizer, Opened)
    assert heldout is None or isinstance(heldout, Opened)
    assert contamination is None or isinstance(contamination, Opened)
    some = {n: item for n, item in tokens.items() if isinstance(item, Opened) and summary_of(item)["tokens"] > 0}
    report(Progress(stage=f"mixtures/{context.recipe.name}", done=0, total=1, unit="mixtures"))
    base = context.build.store.where("mixtures/any")  # uris depend on the depth only, not on the name
    made = mix.mixture(
        context.recipe,
        context.gates,
        tokens=some,
        tokenizer=tokenizer,
        heldout=heldout,
        contamination=contamination,
        base=base,
        summary=counts,
    ).identified()
    path = f"mixtures/{made.name}-{short(made.id)}"
    return context.build.publish(path, made.model_copy(update={"producer": producer(()), "created": now()}))
