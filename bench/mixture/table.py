"""Figures → mixture.md: each goal with what was measured, then the measurements, on which machine."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from bench.mixture.runs import middle, spread

HEAD = """# Mixtures: tokenising, loading, opening, tracing, packing

Made by `make bench-mixture` on {made}: {processor}, {cores} cores, {memory_gib} GiB, {system}, Python {python}.

Every measurement is a process of its own, pinned to one core unless it says otherwise; figures are medians of {repeats}
runs, which took turns with those of the others. *Others* is how many cores' worth of work other programs did meanwhile,
on all cores of the machine; *spread* is how far the runs lie apart, as a share of the median.
"""

TOKENISING = """
## Tokenising

The bare loop is `encode_batch_fast` over batches of texts that are in memory (32, on several cores 1,000), and keeps
nothing. Winnow reads Parquet, sorts documents by the hash of their ids, writes shards and hashes them. The vocabulary
has {vocab_size:,} tokens.
"""

LOADING = """
## Loading

Windows of 2,048 tokens of a mixture of four streams, in batches, without worker processes; files are in the page cache.
Winnow gives int64 tokens and the weights of their targets, checks every token against the vocabulary, and mixes and
shuffles by its order function; peers give tokens alone, with what their documentation recommends for speed.
"""

GIANT = """
## A mixture of 10¹² tokens

Seven streams, 15,625 shards of 64 M tokens as `dataproc build` cuts them, 10⁹ documents, two phases, {steps:,.0f} steps
of 64 windows. The files are sparse: what a question looks at is there, the rest is holes.
"""

PACKING = """
## Packing

Best fit, beside windows that hold one document each.
"""


@dataclass(frozen=True)
class Goal:
    """A goal, what was measured, and whether it is reached. `share`: of the goal, 1 or more where it is reached."""

    what: str
    goal: str
    found: str
    share: float

    @property
    def reached(self) -> bool:
        return self.share >= 1


def page(figures: dict[str, Any]) -> str:
    """The whole page."""
    repeats = len(figures["giant"])
    parts = [HEAD.format(made=figures["made"], repeats=repeats, **figures["machine"])]
    if figures["remark"]:
        parts.append(figures["remark"] + "\n")
    rows = [(g.what, g.goal, g.found, "yes" if g.reached else "**no**") for g in goals(figures)]
    parts.append(_table("what|goal|measured|reached", rows))
    parts += [
        _tokenising(figures),
        _loading(figures["loading"]),
        _giant(figures["giant"]),
        _padding(figures["padding"]),
    ]
    return "\n".join(parts)


def goals(figures: dict[str, Any]) -> list[Goal]:
    """The goals of the issue that this benchmark belongs to."""
    found = []
    for row in figures["tokenising"]:
        ratio = tokenising_ratio(row)
        cores = "one core" if row["cores"] == 1 else f"{row['cores']} cores"
        found.append(
            Goal(f"tokenising on {cores}, against `tokenizers` in a bare loop", "≥ 0.95", f"{ratio:.2f}", ratio / 0.95)
        )
    for batch, ratio, best in loading_ratios(figures["loading"]):
        what = f"loader, tokens a core at seq_len 2048, batches of {batch}, against the best peer ({best})"
        found.append(Goal(what, "≥ 2 ×", f"{ratio:.1f} ×", ratio / 2))
    giant = figures["giant"]
    open_s, held = middle(giant, "open_and_seek_s"), middle(giant, "opened_mb")
    found += [
        Goal("opening 10¹² tokens in 10⁹ documents and seeking to any step", "≤ 1 s", f"{open_s:.2f} s", 1 / open_s),
        Goal("the same, memory of the process at most", "≤ 200 MB", f"{held:.0f} MB", 200 / held),
    ]
    for what, figure in (
        ("step → documents, a window", "window_us"),
        ("document → steps, an occurrence", "occurrence_us"),
    ):
        us = middle(giant, figure)
        found.append(Goal(f"{what}, of the same mixture", "≤ 50 µs", f"{us:.1f} µs", 50 / us))
    worst = max(row["padding"] for row in figures["padding"])
    found.append(
        Goal(
            "padding in packed instructions, the worst of those below", "≤ 2 %", f"{worst:.2%}", 0.02 / max(worst, 1e-9)
        )
    )
    return found


def tokenising_ratio(row: dict[str, Any]) -> float:
    """Winnow's throughput as a share of the bare loop's: by CPU time on one core, by wall time on several."""
    clock = "cpu_s" if row["cores"] == 1 else "wall_s"
    return middle(row["bare"], clock) / middle(row["winnow"], clock)


def loading_ratios(rows: Sequence[dict[str, Any]]) -> list[tuple[int, float, str]]:
    """For each batch size, Winnow's tokens a CPU second against those of the fastest peer, and its name."""
    found = []
    for batch in sorted({row["batch"] for row in rows}):
        speed = {row["name"]: rate(row) for row in rows if row["batch"] == batch and row["runs"]}
        peers = {name: value for name, value in speed.items() if not name.startswith("Winnow")}
        if peers:
            best = max(peers, key=lambda name: peers[name])
            found.append((batch, speed["Winnow"] / peers[best], best))
    return found


def rate(row: dict[str, Any]) -> float:
    """Tokens per CPU second of a loader."""
    return 1 / middle([{"each": run["cpu_s"] / run["tokens"]} for run in row["runs"]], "each")


def _tokenising(figures: dict[str, Any]) -> str:
    rows = []
    for row in figures["tokenising"]:
        for name, runs in (("`tokenizers`, bare", row["bare"]), ("Winnow", row["winnow"])):
            size, tokens = runs[0]["bytes"] / 1e6, runs[0]["tokens"] / 1e6
            cpu_s, wall_s = middle(runs, "cpu_s"), middle(runs, "wall_s")
            rows.append(
                (name, str(row["cores"]), f"{size:.1f}", f"{tokens:.2f}", f"{cpu_s:.2f}", f"{wall_s:.2f}",
                 f"{size / wall_s:.2f}", f"{spread(runs, 'wall_s'):.0%}", f"{middle(runs, 'others'):.1f}")
            )  # fmt: skip
    head = TOKENISING.format(vocab_size=figures["corpus"]["vocab_size"])
    return head + "\n" + _table("system|cores|MB|M tokens|CPU s|wall s|MB/s|spread|others", rows)


def _loading(rows: Sequence[dict[str, Any]]) -> str:
    cells = []
    for row in sorted(rows, key=lambda r: (r["batch"], -rate(r) if r["runs"] else 0)):
        first = (row["name"], row["version"], row["settings"], str(row["batch"]))
        if not row["runs"]:
            cells.append((*first, "–", "–", "–", "–"))
            continue
        wall = middle([{"each": run["tokens"] / run["wall_s"]} for run in row["runs"]], "each")
        apart = spread([{"each": run["tokens"] / run["cpu_s"]} for run in row["runs"]], "each")
        others = middle(row["runs"], "others")
        cells.append((*first, f"{rate(row) / 1e6:,.1f}", f"{wall / 1e6:,.1f}", f"{apart:.0%}", f"{others:.1f}"))
    failed = {row["name"]: row["failure"] for row in rows if row["failure"]}
    told = [f"- **{name}** {failure}" for name, failure in failed.items()]
    table = _table("loader|version|settings|batch|M tokens / CPU s|M tokens / s|spread|others", cells)
    return "\n".join([LOADING, table, *(["", "Without figures:", "", *told] if told else [])])


def _giant(runs: Sequence[dict[str, Any]]) -> str:
    names = {
        "import_s": ("imports, s", "{:.2f}"),
        "open_s": ("opening the mixture, its streams and the order, s", "{:.2f}"),
        "open_cpu_s": ("the same, CPU s", "{:.2f}"),
        "seek_s": ("the first batch of a step, the slowest of 40 steps drawn over the whole run, s", "{:.4f}"),
        "base_mb": ("memory after imports, MB", "{:.0f}"),
        "opened_mb": ("memory after opening and seeking to a step, at most, MB", "{:.0f}"),
        "sought_mb": ("memory after 40 steps, with the pages of files that are mapped, MB", "{:.0f}"),
        "windows": ("windows traced to their documents", "{:,.0f}"),
        "documents_per_window": ("documents in a window", "{:.1f}"),
        "window_us": ("step → documents, CPU µs a window", "{:.1f}"),
        "window_first_us": ("the same, the first time, with shards still to be opened", "{:.1f}"),
        "occurrences": ("occurrences of 400 documents found", "{:,.0f}"),
        "occurrence_us": ("document → steps, CPU µs an occurrence", "{:.1f}"),
        "occurrence_first_us": ("the same, the first time", "{:.1f}"),
        "find_us": ("finding the id of a document in its stream, CPU µs", "{:.1f}"),
        "traced_mb": ("memory after tracing, with the pages of files that are mapped, MB", "{:.0f}"),
        "others": ("others", "{:.1f}"),
    }  # fmt: skip
    rows = [(what, form.format(middle(runs, key))) for key, (what, form) in names.items()]
    return GIANT.format(steps=runs[0]["steps"]) + "\n" + _table("what|median", rows)


def _padding(rows: Sequence[dict[str, Any]]) -> str:
    cells = [
        (row["of"], f"{row['documents']:,}", f"{row['seq_len']:,}", f"{row['windows']:,}", f"{row['padding']:.3%}",
         f"{row['one_each']:.1%}", f"{row['longer']:.2%}", f"{row['cpu_s']:.2f}")
        for row in rows
    ]  # fmt: skip
    names = "documents of|documents|seq_len|windows|padding|one each|longer than a window|CPU s"
    return PACKING + "\n" + _table(names, cells) + "\n"


def _table(names: str, rows: Iterable[Sequence[str]]) -> str:
    lines = [names.split("|"), ["---"] * len(names.split("|")), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
