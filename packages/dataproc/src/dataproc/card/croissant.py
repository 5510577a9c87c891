"""Croissant metadata of a mixture (format 1.0, https://docs.mlcommons.org/croissant/docs/croissant-spec.html).

    distribution   a file set per source: the Parquet shards of its deduplicated documents
    recordSet      per source, their columns

Paths are relative to the directory from which the file is to be read: programs look for file sets below it only.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from dataproc.card.record import Card, SourceCard
from manifest.identity import short

CONFORMS = "http://mlcommons.org/croissant/1.0"
CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    **{
        name: f"cr:{name}"
        for name in (
            *("citeAs", "column", "equivalentProperty", "extract", "field", "fileProperty", "fileObject", "fileSet"),
            *("format", "includes", "isLiveDataset", "jsonPath", "key", "md5", "parentField", "path", "recordSet"),
            *("references", "regex", "repeated", "replace", "samplingRate", "separator", "source", "subField"),
            "transform",
        )
    },
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "rai": "http://mlcommons.org/croissant/RAI/",
    "sc": "https://schema.org/",
}
COLUMNS = {
    "id": "The document's id: its source, and the id that the record had or a hash of its text",
    "text": "The text, repaired",
    "source": "The source",
    "meta": "The other fields of the record, as canonical JSON",
}


def croissant(card: Card, files: Mapping[str, str]) -> str:
    """JSON-LD. files: of each source, a glob of the Parquet files that hold its documents."""
    licences = sorted({licence for source in card.sources for licence in source.licences if licence})
    fields = {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "name": card.name,
        "description": _description(card),
        "conformsTo": CONFORMS,
        "url": f"urn:sha256:{card.id}",
        "version": "1.0.0",
        "identifier": card.id,
        "license": licences or "unknown: no document says so",
        "keywords": [source.name for source in card.sources],
        "distribution": [_files(source, files[source.name]) for source in card.sources],
        "recordSet": [_records(source) for source in card.sources],
    }
    return json.dumps(fields, indent=2) + "\n"


def _description(card: Card) -> str:
    return (
        f"{card.documents:,} documents of {len(card.sources)} sources; {card.dedup}. The training mixture "
        f"{card.name}-{short(card.id)} draws {card.tokens:,} tokens of them over the phases "
        f"{', '.join(phase.name for phase in card.phases)}."
    )


def _files(source: SourceCard, includes: str) -> dict[str, Any]:
    return {
        "@type": "cr:FileSet",
        "@id": f"{source.name}-files",
        "name": f"{source.name}-files",
        "description": f"Deduplicated documents of {source.name}",
        "encodingFormat": "application/x-parquet",
        "includes": includes,
    }


def _records(source: SourceCard) -> dict[str, Any]:
    return {
        "@type": "cr:RecordSet",
        "@id": source.name,
        "name": source.name,
        "description": f"{source.retention.kept:,} documents",
        "key": {"@id": f"{source.name}/id"},
        "field": [
            {
                "@type": "cr:Field",
                "@id": f"{source.name}/{column}",
                "name": column,
                "description": said,
                "dataType": "sc:Text",
                "source": {"fileSet": {"@id": f"{source.name}-files"}, "extract": {"column": column}},
            }
            for column, said in COLUMNS.items()
        ],
    }
