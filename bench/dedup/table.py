"""Figures → dedup.md: who removed what, at which cost, on which machine."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from statistics import median
from typing import Any

HEAD = """# Near-duplicate removal: Winnow and its peers

Made by `make bench-dedup` on {made}: {processor}, {cores} cores, {memory_gib} GiB, {system}, Python {python}.

The task is word 5-grams, 128 permutations, J ≥ 0.8, from Parquet to filtered files. The corpus is `dataproc synth
recipes/synth/duplicates.yaml`: text with planted near-duplicates of every grade. Precision and recall are against the
exact answer (all pairs by prefix filtering, `bench/dedup/oracle.py`; connected components): precision = Σ min(removed,
size − 1) / removed, recall = the same / Σ (size − 1), so it does not matter which member stays. Peers split words by
their own rules and are judged by this one definition, which costs some of them 1 to 3 points. A build by characters
is another task, and is not judged by it.

CPU is that of the whole process tree, start included; memory is proportional set size, summed. All figures are medians
of the runs, which took turns with those of the others; every system had run before over a small corpus. *Others* is how
many cores' worth of work other programs did meanwhile.
"""

COLUMNS = "system version settings documents CPU_s wall_s peak_MB MB/CPU_s documents/CPU_s precision recall runs others"


def page(figures: dict[str, Any]) -> str:
    """The whole page."""
    parts = [HEAD.format(made=figures["made"], **figures["machine"]), _systems(figures["systems"])]
    if figures["scaling"]:
        parts.append(_scaling(figures["scaling"]))
    return "\n".join(parts)


def _systems(rows: list[dict[str, Any]]) -> str:
    names = COLUMNS.split()
    lines = [_line(name.replace("_", " ") for name in names), "|" + "---|" * len(names)]
    lines += [_line(_cells(row)) for row in rows]
    corpora = {row["corpus"]["documents"]: row["corpus"] for row in rows}
    told = [
        f"- {c['documents']:,} documents, {c['text_bytes'] / 1e6:,.1f} MB of text, sha256 `{c['sha256'][:16]}`"
        for c in sorted(corpora.values(), key=lambda c: -c["documents"])
    ]
    failed = [f"- **{row['name']}** {row['failure']}" for row in rows if row["failure"]]
    if failed:
        told += ["", "Without figures:", "", *failed]
    return "\n".join(["", *lines, "", "Corpora:", "", *told, ""])


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _cells(row: dict[str, Any]) -> list[str]:
    documents, size = row["corpus"]["documents"], row["corpus"]["text_bytes"]
    first = [row["name"], row["version"], row["settings"], f"{documents:,}"]
    if not row["runs"]:
        return [*first, *["–"] * (len(COLUMNS.split()) - len(first))]
    cpu_s = middle(row, "cpu_s")
    scores = [
        f"{middle(row, lambda run: run['score']['precision']):.3f}",
        f"{middle(row, lambda run: run['score']['recall']):.3f}",
    ]
    return [
        *first,
        f"{cpu_s:,.1f}",
        f"{middle(row, 'wall_s'):,.1f}",
        f"{middle(row, 'peak_mb'):,.0f}",
        f"{size / 1e6 / cpu_s:,.2f}",
        f"{documents / cpu_s:,.0f}",
        *(scores if row["by_words"] else ["–", "–"]),
        str(len(row["runs"])),
        f"{middle(row, 'others'):.1f}",
    ]


def middle(row: dict[str, Any], figure: str | Callable[[dict[str, Any]], float]) -> float:
    """The median of a figure over the runs of a row."""
    return float(median(run[figure] if isinstance(figure, str) else figure(run) for run in row["runs"]))


def _scaling(rows: list[dict[str, Any]]) -> str:
    parts = list(rows[0]["parts_cpu_s"])
    names = ["documents", "MB", *parts, "start", "whole command", "whole − start", "largest process MB"]
    lines = [_line(names), "|" + "---|" * len(names)]
    for row in rows:
        shown = [f"{row['documents']:,}", f"{row['text_bytes'] / 1e6:,.1f}"]
        shown += [f"{row['parts_cpu_s'][part]:.2f}" for part in parts]
        shown += [f"{s:.2f}" for s in (row["start_cpu_s"], row["whole_cpu_s"], row["whole_cpu_s"] - row["start_cpu_s"])]
        lines.append(_line([*shown, f"{row['peak_process_mb']:,.0f}"]))
    low, high = rows[0], rows[-1]
    times, more = high["documents"] / low["documents"], high["text_bytes"] / low["text_bytes"]
    whole = high["whole_cpu_s"] / low["whole_cpu_s"]
    work = (high["whole_cpu_s"] - high["start_cpu_s"]) / (low["whole_cpu_s"] - low["start_cpu_s"])
    told = (
        f"From {low['documents']:,} to {high['documents']:,} documents ({times:.1f} × as many, {more:.1f} × the bytes) "
        f"CPU time grows {whole:.2f} ×, and {work:.2f} × without the start of the process."
    )
    head = (
        "## How Winnow grows\n\nSerial workers: CPU seconds of each part without the start of its process (`documents` "
        "with reading, ftfy and the length filter), and of the whole in one command from documents on."
    )
    return "\n".join([head, "", *lines, "", told, "", *_predictions(rows)])


def _predictions(rows: list[dict[str, Any]]) -> list[str]:
    """What `--dry-run` foresees beside what was measured."""
    parts = list(rows[0]["parts_cpu_s"])
    names = ["documents", *parts, "all", "artifacts MB"]
    lines = [_line(names), "|" + "---|" * len(names)]
    for row in rows:
        told, seen = row["predicted"]["parts_cpu_s"], row["parts_cpu_s"]
        cells = [f"{told[part]:.2f} / {seen[part]:.2f}" for part in parts]
        cells.append(f"{sum(told.values()):.1f} / {sum(seen.values()):.1f}")
        sizes = f"{row['predicted']['artifacts_bytes'] / 1e6:,.0f} / {row['artifacts_bytes'] / 1e6:,.0f}"
        lines.append(_line([f"{row['documents']:,}", *cells, sizes]))
    head = "What `dataproc build --dry-run` foresees, and what was measured (CPU seconds: foreseen / measured):"
    return [head, "", *lines, ""]
