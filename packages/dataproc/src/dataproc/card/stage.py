"""The stage: a mixture → cards/<mixture>: index.html, README.md, card.json, croissant.json.

The paths in croissant.json are relative to the store: programs that load documents by it want it there.
"""

from __future__ import annotations

from dataproc.card.croissant import croissant
from dataproc.card.facts import gather_card
from dataproc.card.pages import pages
from dataproc.documents import file_shard
from dataproc.samples import upstream
from dataproc.stage import Build, Draft, Made, Planned, Request
from manifest.artifact import Opened

STAGE = "card/3"
PAGE = "index.html"


def card_of(mixture: Opened, build: Build) -> Opened | Planned:
    """The card of a mixture, made or re-used. Raises ArtifactError if what the mixture was made from is gone."""

    def make(draft: Draft) -> Made:
        card = gather_card(mixture)
        deduped = {i.manifest.name: i.directory for i in upstream(mixture) if i.manifest.kind == "deduped"}
        parquet = {name: f"deduped/{directory.name}/documents-*.parquet" for name, directory in deduped.items()}
        files = {
            **pages(card),
            "croissant.json": croissant(card, parquet),
            "card.json": card.model_dump_json(indent=2) + "\n",
        }
        for name, text in files.items():
            (draft.path / name).write_text(text, encoding="utf-8")
        return Made(tuple(file_shard(draft.path / name, 1) for name in sorted(files)), {"files": len(files)})

    return build.make(Request("cards", mixture.manifest.name, STAGE, {}, {"mixture": mixture}), make)
