"""The licences that documents name in their metadata, as the Hub knows them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc

FIELDS = ("license", "licence", "licenses", "licences")
MOST_CHARACTERS = 64
"""What is longer is a text and not a name."""
MOST_NAMES = 1000
OTHER, NONE = "(others)", ""

HUB = frozenset(
    """afl-3.0 agpl-3.0 apache-2.0 apple-amlr apple-ascl artistic-2.0 bigcode-openrail-m bigscience-bloom-rail-1.0
    bigscience-openrail-m bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear bsl-1.0 c-uda cc cc-by-2.0 cc-by-2.5
    cc-by-3.0 cc-by-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0
    cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cc-by-nd-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc0-1.0 cdla-permissive-1.0
    cdla-permissive-2.0 cdla-sharing-1.0 creativeml-openrail-m deepfloyd-if-license ecl-2.0 epl-1.0 epl-2.0 etalab-2.0
    eupl-1.1 eupl-1.2 gemma gfdl gpl gpl-2.0 gpl-3.0 intel-research isc lgpl lgpl-2.1 lgpl-3.0 lgpl-lr llama2 llama3
    llama3.1 llama3.2 llama3.3 lppl-1.3c mit mpl-2.0 ms-pl ncsa odbl odc-by ofl-1.1 open-mdw openrail openrail++ osl-3.0
    pddl postgresql unknown unlicense wtfpl zlib""".split()
)
"""The identifiers that the Hub takes as `license`; anything else is `other`."""


def named(meta: pa.Array | pa.ChunkedArray) -> Counter[str]:
    """Licence → documents that name it, from a column of JSON objects."""
    found = counted(meta)
    del found[NONE]
    return found


def counted(meta: pa.Array | pa.ChunkedArray) -> Counter[str]:
    """As `named`, and NONE → the documents that name none."""
    likely = meta.filter(pc.match_substring_regex(meta, "licen[cs]e", ignore_case=True))
    found = Counter({NONE: len(meta) - len(likely)})
    for text in likely.to_pylist():
        found.update({name for name in _names(orjson.loads(text)) if 0 < len(name) <= MOST_CHARACTERS} or {NONE})
    return capped(+found)


def capped(counts: Mapping[str, int]) -> Counter[str]:
    """The most frequent names; all others together."""
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    kept = Counter(dict(ranked[:MOST_NAMES]))
    if rest := sum(count for _, count in ranked[MOST_NAMES:]):
        kept[OTHER] += rest
    return kept


def hub_ids(names: Mapping[str, int]) -> list[str]:
    """The identifiers of the Hub for these names, most frequent first."""
    found: Counter[str] = Counter()
    for name, count in names.items():
        found[_hub_id(name)] += count
    return [name for name, _ in sorted(found.items(), key=lambda item: (-item[1], item[0]))]


def _hub_id(name: str) -> str:
    plain = name.strip().lower().replace(" ", "-")
    for suffix in ("", "-only", "-or-later"):
        if plain.endswith(suffix) and plain.removesuffix(suffix) in HUB:
            return plain.removesuffix(suffix)
    return "other"


def _names(meta: Any) -> Iterator[str]:
    """The licences of one document, also in an object one level down."""
    if not isinstance(meta, dict):
        return
    for key, value in meta.items():
        if key.lower() in FIELDS or key.lower().endswith(("_licenses", "_license")):
            yield from (str(name) for name in (value if isinstance(value, list) else [value]) if isinstance(name, str))
        elif isinstance(value, dict):
            yield from (str(name) for k, name in value.items() if k.lower() in FIELDS and isinstance(name, str))
