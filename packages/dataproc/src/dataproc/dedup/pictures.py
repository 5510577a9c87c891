"""A what-if or an overlap → its picture, as the bytes of a PNG.

A what-if is kept share against threshold, a line per scope: all sources in front, then each on its own, on one scale.
An overlap is two heat maps, source × source: who has what elsewhere, and who loses what to whom.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dataproc.dedup.overlap import Overlap, Share
from dataproc.dedup.pages import compact
from dataproc.dedup.whatif import WhatIf
from dataproc.recipe.dedup import Scope

if TYPE_CHECKING:  # it takes a second to import
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#222222"
SCOPES: dict[Scope, tuple[str, float]] = {
    "none": ("#b5b5b5", 1.4),
    "local": ("#8fbbe3", 4.0),  # wide and light, so that it is seen below global, which often agrees with it
    "global": ("#b03a06", 1.5),
}
DOTTED: Any = (0, (2.0, 1.2))
COLUMNS = (5, 4, 3)
DPI = 150


def whatif_png(found: WhatIf) -> bytes:
    from matplotlib.figure import Figure

    panels = [None, *found.sources] if len(found.sources) > 1 else list(found.sources)
    columns = min(COLUMNS, key=lambda count: (-len(panels) % count, -count)) if len(panels) > 2 else len(panels)
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(max(5.5, 1.0 + 2.6 * columns), 1.2 + 2.3 * rows), layout="constrained")
    grid = list(figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel())
    for axes, source in zip(grid, panels, strict=False):
        _curves(axes, found, source)
    for axes in grid[len(panels) :]:
        axes.remove()
    _frame(figure, grid[: len(panels)], columns)
    return _png(figure)


def _curves(axes: Axes, found: WhatIf, source: str | None) -> None:
    everything = found.kept("none", source)[0]
    at = list(found.thresholds)
    if len(at) == 1:  # a point would not show its line's style
        at = [at[0] - 0.02, at[0] + 0.02]
        axes.set_xticks(found.thresholds)
    for scope, (colour, width) in SCOPES.items():
        kept = found.kept(scope, source)
        for unit, style in (("documents", "-"), ("tokens", DOTTED)):
            if scope != "none" or unit == "documents":
                share = [100 * getattr(point, unit) / max(1, getattr(everything, unit)) for point in kept]
                share = share * (len(at) // len(share))
                axes.plot(at, share, color=colour, linewidth=width, linestyle=style)
    title = f"{source or 'all sources'}: {compact(everything.documents)} documents"
    axes.set_title(title, fontsize=9, color=INK, loc="left", fontweight="normal" if source else "bold")
    axes.grid(color="#e8e8e8", linewidth=0.7)
    axes.tick_params(labelsize=8, colors=INK)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color("#bbbbbb")


def _frame(figure: Figure, panels: Sequence[Axes], columns: int) -> None:
    """What all panels have in common: the scale, the axes' names and the legend."""
    from matplotlib.lines import Line2D

    lowest = min(float(np.min(np.asarray(line.get_ydata()))) for axes in panels for line in axes.lines)
    panels[0].set_ylim(max(0.0, 10 * math.floor(lowest / 10) - 2.0), 102)
    for axes in panels[-columns:]:
        axes.tick_params(labelbottom=True)
        axes.set_xlabel("Jaccard threshold", fontsize=8, color=INK)
    for axes in panels[::columns]:
        axes.set_ylabel("kept, % of all", fontsize=8, color=INK)
    looks: list[tuple[str, str, float, Any]] = [
        (f"scope {scope}", colour, width, "-") for scope, (colour, width) in SCOPES.items()
    ]
    looks += [("documents", INK, 1.5, "-"), ("tokens, estimated", INK, 1.5, DOTTED)]
    handles = [Line2D([], [], color=c, linewidth=w, linestyle=style, label=name) for name, c, w, style in looks]
    figure.suptitle("What dedup keeps, by threshold and scope", fontsize=12, color=INK)
    figure.legend(
        handles=handles, loc="outside lower center", ncols=min(len(handles), 3 * columns), fontsize=8, frameon=False
    )


def overlap_png(found: Overlap) -> bytes:
    from matplotlib.figure import Figure

    side = 1.6 + 0.62 * len(found.sources)
    figure = Figure(figsize=(max(7.0, 2 * side + 0.8), max(3.2, side + 0.6)), layout="constrained")
    shared, lost = figure.subplots(1, 2)
    _heat(
        shared,
        found.shared,
        found.sources,
        "Documents of a source (row) that have a\nnear-duplicate in a source (column)",
        "Blues",
    )
    _heat(
        lost,
        found.lost,
        found.sources,
        "Documents that a source (row) loses to\na source (column) under global dedup",
        "Oranges",
    )
    title = f"What the sources share, by {found.criterion}"
    figure.suptitle(title, fontsize=12, color=INK)
    return _png(figure)


def _heat(
    axes: Axes, cells: Mapping[str, Mapping[str, Share]], sources: Sequence[str], title: str, colours: str
) -> None:
    from matplotlib import colormaps

    share = np.array([[cells[a][b].share for b in sources] for a in sources])
    shown = np.ma.masked_equal(np.sqrt(share), 0)  # the root, so that a percent can be told from none
    axes.imshow(shown, cmap=colormaps[colours].with_extremes(bad="#f6f6f6"), vmin=0, vmax=1)
    for row, a in enumerate(sources):
        for column, b in enumerate(sources):
            cell = cells[a][b]
            if cell.documents:
                text = f"{_percent(cell.share)}\n{compact(cell.documents)}"
                ink = "white" if cell.share > 0.4 else INK
                axes.text(column, row, text, ha="center", va="center", fontsize=7, color=ink)
    axes.set_title(title, fontsize=9, color=INK)
    axes.set_xticks(range(len(sources)), sources, rotation=40, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(sources)), sources)
    axes.tick_params(length=0, labelsize=8, colors=INK)
    edges = np.arange(len(sources) + 1) - 0.5
    axes.set_xticks(edges, minor=True)
    axes.set_yticks(edges, minor=True)
    axes.tick_params(which="minor", length=0)
    axes.grid(which="minor", color="white", linewidth=1.5)
    axes.spines[:].set_visible(False)


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.0995 else f"{100 * share:.1f} %" if share >= 0.0005 else "< 0.1 %"


def _png(figure: Figure) -> bytes:
    written = io.BytesIO()
    figure.savefig(written, format="png", dpi=DPI, metadata={"Software": None})
    return written.getvalue()
