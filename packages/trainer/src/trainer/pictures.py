"""What the trainer measures or plans → its picture, as the bytes of a PNG."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from trainer.recipe import TrainRecipe
from trainer.schedule import decay_curves, rate_curves

if TYPE_CHECKING:  # it takes a second to import
    from collections.abc import Mapping

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from trainer.coords import CoordinateCheck
    from trainer.search import Search
    from trainer.sweep import Sweep

INK = "#222222"
COLOURS = ("#b03a06", "#2f6aa8", "#4c8c3f", "#7d4f9e", "#b8860b", "#3a8f8f", "#8c564b", "#555555")
POINTS = 2000
DPI = 150


def schedules_png(recipe: TrainRecipe, steps: Mapping[str, range]) -> bytes:
    """The learning rate of a run over its steps, phase by phase, and the weight decay where it is scheduled."""
    from matplotlib.figure import Figure

    curves = {"learning rate": rate_curves(recipe, steps)}
    if recipe.schedules_weight_decay:
        curves["weight decay"] = decay_curves(recipe, steps)
    figure = Figure(figsize=(8, 1.2 + 2.4 * len(curves)), layout="constrained")
    rows = figure.subplots(len(curves), 1, sharex=True, squeeze=False).ravel()
    for axes, (name, of_phase) in zip(rows, curves.items(), strict=True):
        for index, (phase, within) in enumerate(steps.items()):
            at = _spread(within)
            colour = COLOURS[index % len(COLOURS)]
            axes.plot(at, [of_phase[phase].rate(step) for step in at], color=colour, linewidth=1.6)
            axes.axvspan(within.start, within.stop, color=colour, alpha=0.06, linewidth=0)
            axes.annotate(
                phase,
                ((within.start + within.stop) / 2, 1.0),
                xycoords=("data", "axes fraction"),
                ha="center",
                va="bottom",
                fontsize=8,
                color=colour,
            )
        axes.set_ylabel(name, fontsize=9, color=INK)
        axes.set_ylim(bottom=0)
        plain(axes)
    rows[-1].set_xlabel("step", fontsize=9, color=INK)
    return png(figure)


def coords_png(found: CoordinateCheck) -> bytes:
    """Mean |activation| over the width, a line per place: rows are parametrisations, columns steps."""
    from matplotlib.figure import Figure

    steps = sorted({0, 1, found.steps})
    figure = Figure(figsize=(3.1 * len(steps) + 1.6, 5.6), layout="constrained")
    grid = figure.subplots(len(found.parametrisations), len(steps), sharex=True, sharey="row", squeeze=False)
    for row, (kind, slopes) in zip(grid, found.parametrisations.items(), strict=True):
        for axes, step in zip(row, steps, strict=True):
            for index, (place, of_width) in enumerate(slopes.sizes.items()):
                sizes = [size[step] for size in of_width.values()]
                if all(size > 0 for size in sizes):
                    colour = COLOURS[index % len(COLOURS)]
                    style = "--" if index >= len(COLOURS) else "-"
                    axes.plot(list(of_width), sizes, style, marker="o", markersize=3, color=colour, label=place)
            axes.set_xscale("log", base=2)
            axes.set_yscale("log", base=2)
            axes.set_title(f"{kind}, step {step}", fontsize=9, color=INK, loc="left")
            plain(axes)
        row[0].set_ylabel("mean |activation|", fontsize=9, color=INK)
    for axes in grid[-1]:
        axes.set_xlabel("width", fontsize=9, color=INK)
        axes.set_xticks(found.widths, [str(width) for width in found.widths])
        axes.minorticks_off()
    handles, labels = grid[0][-1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", fontsize=8, frameon=False)
    return png(figure)


def sweep_png(found: Sweep) -> bytes:
    """Final loss over the learning rate, a line per width; a panel per parametrisation. Crosses are the best rates."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.4 + 4.2 * len(found.parametrisations), 3.8), layout="constrained")
    row = figure.subplots(1, len(found.parametrisations), sharey=True, squeeze=False).ravel()
    for axes, (kind, transfer) in zip(row, found.parametrisations.items(), strict=True):
        for index, curve in enumerate(transfer.curves):
            finite = [(rate, loss) for rate, loss in curve.losses if loss is not None]
            colour = COLOURS[index % len(COLOURS)]
            rates, losses = [rate for rate, _ in finite], [loss for _, loss in finite]
            axes.plot(rates, losses, marker="o", markersize=3, color=colour, label=f"width {curve.width}")
            if curve.best is not None:
                axes.plot([curve.best], [min(losses)], "x", color=colour, markersize=9)
        drift = (
            "best rate at an edge" if transfer.drift is None else f"best rate drifts by {transfer.drift:.1f} octaves"
        )
        axes.set_title(f"{kind}: {drift}", fontsize=9, color=INK, loc="left")
        axes.set_xscale("log", base=2)
        axes.set_xlabel("learning rate", fontsize=9, color=INK)
        axes.set_xticks(found.rates, [f"{rate:.2g}" for rate in found.rates], fontsize=7)
        axes.minorticks_off()
        plain(axes)
    row[0].set_ylabel("final loss, nats", fontsize=9, color=INK)
    row[0].legend(fontsize=8, frameon=False)
    return png(figure)


def search_png(found: Search) -> bytes:
    """Loss of every draw over each constant; the recipe's own is a square, the best a cross."""
    from matplotlib.figure import Figure

    drawn = [draw for draw in found.draws if draw.loss is not None]
    figure = Figure(figsize=(11, 3.2), layout="constrained")
    row = figure.subplots(1, len(found.best), sharey=True, squeeze=False).ravel()
    for axes, name in zip(row, found.best, strict=True):
        axes.scatter([draw.constants[name] for draw in drawn], [draw.loss for draw in drawn], s=14, color=COLOURS[1])
        best = next(draw for draw in drawn if draw.constants == found.best)
        for draw, mark in ((found.draws[0], "s"), (best, "x")):
            axes.plot([draw.constants[name]], [draw.loss], mark, color=COLOURS[0], markersize=8, fillstyle="none")
        axes.set_xscale("log")
        axes.set_xlabel(name, fontsize=9, color=INK)
        plain(axes)
    row[0].set_ylabel(f"final loss at width {found.proxy}, nats", fontsize=9, color=INK)
    return png(figure)


def _spread(steps: range) -> list[int]:
    """Steps of a phase, close enough for a line: all of the first hundred, where warm-up is, then evenly."""
    stride = max(1, len(steps) // POINTS)
    return sorted({*steps[:100], *steps[::stride], steps[-1]})


def plain(axes: Axes) -> None:
    """The look of all pictures."""
    axes.grid(color="#e8e8e8", linewidth=0.7)
    axes.tick_params(labelsize=8, colors=INK)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color("#bbbbbb")


def png(figure: Figure) -> bytes:
    """A figure's bytes, without a time or a version in them."""
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=DPI, metadata={"Software": None})
    return out.getvalue()
