"""The norms of old and new rows → a table for the terminal, a page of Markdown, and a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.table import Table

from manifest.errors import InputError
from manifest.store import write_atomic
from trainer.adapt.norms import Distribution, NormReport

if TYPE_CHECKING:  # it takes a second to import
    from matplotlib.axes import Axes

TITLES = ("table", "step", "rows", "count", "mean", "std", "5 %", "median", "95 %")
NAMES = {"embedding.weight": "input embeddings", "unembedding.weight": "output head"}
INK = "#222222"
COLOURS = {"old": "#2f6fab", "new": "#b03a06"}
DPI = 150


def table(found: NormReport) -> Table:
    made = Table(box=None, pad_edge=False, header_style="bold")
    for title in TITLES:
        made.add_column(title, justify="left" if title in ("table", "rows") else "right", no_wrap=True)
    for row in _rows(found):
        made.add_row(*row)
    return made


def page(found: NormReport) -> str:
    """A page that shows the picture beside it."""
    replaced = f", {found.replaced:,} of them in place of others" if found.replaced else ""
    lines = [
        f"# Rows of old and new tokens of {found.run}",
        "",
        f"{found.new_tokens:,} new tokens{replaced}. Euclidean norms of their rows and of the base's.",
        "",
        "![Histograms of the norms of old and new rows](vocabulary.png)",
        "",
        f"| {' | '.join(TITLES)} |",
        "|---|---:|---|" + "---:|" * (len(TITLES) - 3),
        *(f"| {' | '.join(row)} |" for row in _rows(found)),
    ]
    return "\n".join(lines) + "\n"


def write(found: NormReport, out: Path) -> Path:
    """vocabulary.json, .md and .png in a directory; returns the first. Raises InputError if it is a file."""
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out} is a file; give a directory")
    out.mkdir(parents=True, exist_ok=True)
    write_atomic(out / "vocabulary.png", picture(found))
    write_atomic(out / "vocabulary.md", page(found).encode())
    write_atomic(out / "vocabulary.json", (found.model_dump_json(indent=1) + "\n").encode())
    return out / "vocabulary.json"


def picture(found: NormReport) -> bytes:
    """Histograms: a row per table, a column per checkpoint; as shares, for there may be many more old rows. A PNG."""
    import io

    from matplotlib.figure import Figure

    tables = list(found.edges)
    figure = Figure(figsize=(4.5 * len(found.steps), 2.8 * len(tables) + 0.4), layout="constrained")
    grid = figure.subplots(len(tables), len(found.steps), squeeze=False, sharex="row", sharey="row")
    for axes_of_table, name in zip(grid, tables, strict=True):
        for axes, step in zip(axes_of_table, found.steps, strict=True):
            _draw(axes, found.of(name, step), found.edges[name])
            axes.set_title(f"{NAMES[name]}, step {step:,}", fontsize=10, color=INK, loc="left")
        axes_of_table[0].set_ylabel("share of rows", fontsize=8, color=INK)
    for axes in grid[-1]:
        axes.set_xlabel("norm of the row", fontsize=8, color=INK)
    handles, labels = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    written = io.BytesIO()
    figure.savefig(written, format="png", dpi=DPI, metadata={"Software": None})
    return written.getvalue()


def _draw(axes: Axes, found: list[Distribution], edges: tuple[float, ...]) -> None:
    for one in found:
        shares = np.array(one.histogram) / max(one.count, 1)
        axes.stairs(shares, edges, fill=True, alpha=0.45, color=COLOURS[one.rows], label=f"{one.rows} rows")
    axes.tick_params(labelsize=8, colors=INK)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))


def _rows(found: NormReport) -> list[list[str]]:
    return [
        [
            NAMES[one.table],
            f"{one.step:,}",
            one.rows,
            f"{one.count:,}",
            *(f"{value:.4g}" for value in (one.mean, one.std, *(one.quantiles[i] for i in (0, 2, 4) if one.quantiles))),
        ]
        for name in found.edges
        for step in found.steps
        for one in found.of(name, step)
    ]
