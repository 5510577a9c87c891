"""A what-if or an overlap → tables to read: on stderr, and as a page of Markdown; and all of it, written.

<name>.json   the record      <name>.md   the page, which shows <name>.png
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.table import Table

from dataproc.dedup.overlap import Overlap, Share
from dataproc.dedup.tokens import CHARACTERS_PER_TOKEN, TokenRate
from dataproc.dedup.whatif import Kept, WhatIf
from manifest.record import Model
from manifest.store import write_atomic

Rows = list[list[str]]


def publish(out: Path, name: str, record: Model, page: str, picture: bytes) -> Path:
    """Writes the three files, the record last. Returns its path."""
    out.mkdir(parents=True, exist_ok=True)
    write_atomic(out / f"{name}.png", picture)
    write_atomic(out / f"{name}.md", page.encode())
    write_atomic(out / f"{name}.json", (record.model_dump_json(indent=2) + "\n").encode())
    return (out / f"{name}.json").absolute()


# ---- what-if


def whatif_table(found: WhatIf) -> Table:
    """All sources together, a row per threshold, for stderr."""
    return _table(["threshold", "scope", "documents", "kept", "tokens", "kept"], _kept_rows(found, None))


def whatif_page(found: WhatIf) -> str:
    lines = [
        "# What dedup keeps, by threshold and scope",
        "",
        f"Near-duplicates are documents of Jaccard ≥ threshold over {found.unit} {found.ngram}-grams, as far as "
        f"{found.bands[0]} × {found.bands[1]} bands of {found.permutations} minima find them: "
        f"{min(found.catch):.1%} of the pairs at the lowest threshold, more above. Of each cluster one is kept, by "
        f"{', '.join(found.keep)}. The counts are those of builds with `bands: [{found.bands[0]}, {found.bands[1]}]`, "
        "before hold-out.",
        "",
        _tokens_note(found.tokens),
        "",
        "![Kept share against threshold](whatif.png)",
    ]
    if found.compared.capped_buckets:
        lines += [
            "",
            f"{found.compared.capped_buckets} buckets were over the cap, and not all of their pairs compared.",
        ]
    titles = ["threshold", "scope", "documents", "kept", "tokens", "kept"]
    for source in (None, *found.sources):
        lines += ["", f"## {source or 'All sources'}", "", *_markdown(titles, _kept_rows(found, source))]
    return "\n".join(lines) + "\n"


def _kept_rows(found: WhatIf, source: str | None) -> Rows:
    everything = found.kept("none", source)[0]
    rows = [["", "none", *_of(everything, everything)]]
    for index, threshold in enumerate(found.thresholds):
        for scope in ("local", "global"):
            rows.append([f"{threshold:g}", scope, *_of(found.kept(scope, source)[index], everything)])
    return rows


def _of(kept: Kept, everything: Kept) -> list[str]:
    return [
        f"{kept.documents:,}",
        _percent(kept.documents, everything.documents),
        f"{kept.tokens:,}",
        _percent(kept.tokens, everything.tokens),
    ]


# ---- overlap


def overlap_table(found: Overlap) -> Table:
    """A row per source, for stderr: what of it others have too, and what it loses."""
    return _table(_OVERLAP_TITLES, _overlap_rows(found))


_OVERLAP_TITLES = [
    "source",
    "documents",
    "also\nelsewhere",
    "share",
    "tokens",
    "lost to\nitself",
    "lost to\nothers",
    "tokens",
]


def _overlap_rows(found: Overlap) -> Rows:
    rows: Rows = []
    for name in found.sources:
        elsewhere, lost = found.elsewhere[name], found.lost[name]
        to_others = [share for other, share in lost.items() if other != name]
        rows.append(
            [
                name,
                f"{found.total[name].documents:,}",
                f"{elsewhere.documents:,}",
                f"{elsewhere.share:.1%}",
                compact(elsewhere.tokens),
                f"{lost[name].documents:,}",
                f"{sum(share.documents for share in to_others):,}",
                compact(sum(share.tokens for share in to_others)),
            ]
        )
    return rows


def overlap_page(found: Overlap) -> str:
    lines = [
        "# What the sources share",
        "",
        f"Near-duplicates are documents of one cluster, by {found.criterion}. Who loses what: under global dedup, "
        f"which keeps one of each cluster, by {', '.join(found.keep)}; sources in this order: "
        f"{', '.join(found.sources)}.",
        "",
        _tokens_note(found.tokens),
        "",
        "![Shared and lost, source by source](overlap.png)",
        "",
        *_markdown(_OVERLAP_TITLES, _overlap_rows(found)),
    ]
    for title, cells in (("has a near-duplicate in", found.shared), ("loses to", found.lost)):
        lines += ["", f"## Documents (and tokens) that each source {title} …", ""]
        lines += _markdown(["source", *found.sources], [[a, *map(_cell, row.values())] for a, row in cells.items()])
    return "\n".join(lines) + "\n"


def _cell(share: Share) -> str:
    return f"{share.documents:,} ({share.tokens:,})" if share.documents else "–"


# ---- both


def _tokens_note(rates: dict[str, TokenRate]) -> str:
    assumed = [name for name, rate in rates.items() if not rate.measured]
    measured = [f"{name} {rate.characters_per_token:.2f}" for name, rate in rates.items() if rate.measured]
    parts = ["Tokens are estimated from characters."]
    if measured:
        parts.append(f"Characters a token, of the sources' own streams: {', '.join(measured)}.")
    if assumed:
        parts.append(f"No stream of tokens was given for {', '.join(assumed)}: {CHARACTERS_PER_TOKEN:g} are assumed.")
    return " ".join(parts)


def compact(count: int) -> str:
    """1,234,567 → 1.23 M"""
    for unit, scale in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= scale:
            return f"{count / scale:.3g} {unit}"
    return str(count)


def _percent(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "–"


def _table(titles: Sequence[str], rows: Rows) -> Table:
    made = Table(box=None, pad_edge=False, header_style="bold")
    for column, title in enumerate(titles):
        made.add_column(title, justify="left" if column == 0 else "right", vertical="bottom", no_wrap=True)
    for row in rows:
        made.add_row(*row)
    return made


def _markdown(titles: Sequence[str], rows: Rows) -> Iterator[str]:
    yield f"| {' | '.join(title.replace(chr(10), ' ') for title in titles)} |"
    yield f"|---|{'---:|' * (len(titles) - 1)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"
