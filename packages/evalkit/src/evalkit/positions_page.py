"""Losses by position → a table for the terminal, a page of Markdown, and a picture."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from rich.table import Table

from evalkit.intervals import CONFIDENCE
from evalkit.positions import Positions
from evalkit.tasks.loss_by_position import Curve, Value
from trainer.pictures import COLOURS, INK, plain, png

if TYPE_CHECKING:  # it takes a second to import
    from matplotlib.axes import Axes

STYLES = ("-", "--", ":", "-.")


def table(found: Positions) -> Table:
    """A row per bucket, a column per curve: nats per token."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    made.add_column("tokens\nread", no_wrap=True, justify="right", vertical="bottom")
    for curve in found.curves:
        made.add_column(curve.label.replace(", ", "\n"), no_wrap=True, justify="right", vertical="bottom")
    for row in _rows(found, found.curves, lambda curve: curve.losses, "{:.3f}"):
        made.add_row(*row)
    return made


def conclusions(found: Positions) -> list[str]:
    """A line per curve that goes beyond what its checkpoint was trained on: whether its loss rises there."""
    lines = []
    for curve in found.curves:
        trained = found.checkpoints[curve.checkpoint].trained_length
        if curve.length <= trained:
            continue
        rises = "does not clearly rise" if curve.rises_at is None else f"is clearly higher from {curve.rises_at:,} on"
        lines.append(f"{curve.label}: beyond {trained:,} tokens, up to {curve.length:,}, loss {rises}")
    return lines


def page(found: Positions) -> str:
    sources = ", ".join(f"{name} {count:,}" for name, count in found.sources.items())
    what = f"{CONFIDENCE:.0%} intervals over documents" if not found.few else "the range of the few documents' values"
    lines = [
        "# Loss by position",
        "",
        f"Nats per token over {found.windows:,} windows of {found.documents:,} held-out documents ({sources}), by how "
        f"many tokens of the window were read before. In brackets, {what}.",
        "",
        "![Loss by position](positions.png)",
        "",
        *_grid(found, found.curves, lambda curve: curve.losses, "{:.3f}"),
    ]
    others = found.curves[1:]
    if others:
        lines += ["", f"Less the loss of {found.curves[0].label} on the same tokens (paired):", ""]
        lines += _grid(found, others, lambda curve: curve.differences, "{:+.3f}")
    lines += ["", *(f"- {line}" for line in conclusions(found))]
    lines += ["", "| checkpoint | run | step | parameters | trained length |", "|---|---|---:|---:|---:|"]
    for label, item in found.checkpoints.items():
        lines.append(f"| {label} | {item.run} | {item.step:,} | {item.parameters:,} | {item.trained_length:,} |")
    return "\n".join(lines) + "\n"


def picture(found: Positions) -> bytes:
    """Loss over position on a logarithmic axis, and beside it each curve less the first, with paired intervals.

    A colour per checkpoint; dashes where its slopes are interpolated. The loss has an interval for the first curve
    only: those of the others are about as wide, for they are over the same documents, and tell nothing of differences.
    """
    from matplotlib.figure import Figure

    panels = 2 if found.curves[1:] else 1
    figure = Figure(figsize=(5.4 * panels, 4.6), layout="constrained")
    left, *right = figure.subplots(1, panels, squeeze=False).ravel()
    for curve, colour, style in _styles(found):
        _line(left, found, curve, curve.losses, colour, style, band=curve is found.curves[0])
        for axes in right:
            _line(axes, found, curve, curve.differences, colour, style, band=True)
    left.set_ylabel("loss, nats per token", fontsize=9, color=INK)
    for axes in right:
        axes.axhline(0, color=COLOURS[0], linewidth=1.5)
        axes.set_ylabel(f"less that of {found.curves[0].label}", fontsize=9, color=INK)
    for axes in (left, *right):
        _frame(axes, found)
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    return png(figure)


def _styles(found: Positions) -> Iterator[tuple[Curve, str, str]]:
    colours = dict(zip(found.checkpoints, COLOURS * len(found.checkpoints), strict=False))
    drawn: Counter[str] = Counter()
    for curve in found.curves:
        yield curve, colours[curve.checkpoint], STYLES[drawn[curve.checkpoint] % len(STYLES)]
        drawn[curve.checkpoint] += 1


def _line(
    axes: Axes, found: Positions, curve: Curve, values: Sequence[Value], colour: str, style: str, *, band: bool
) -> None:
    known = found.buckets[: len(values)]
    at = [(bucket.first * bucket.stop) ** 0.5 for bucket in known]  # the middle on a logarithmic axis
    axes.plot(
        at, [v.value for v in values], style, color=colour, marker="o", markersize=2.5, linewidth=1.5, label=curve.label
    )
    if band:
        axes.fill_between(at, [v.low for v in values], [v.high for v in values], color=colour, alpha=0.12, linewidth=0)


def _frame(axes: Axes, found: Positions) -> None:
    for length in sorted({item.trained_length for item in found.checkpoints.values()}):
        axes.axvline(length, color="#999999", linewidth=0.8, linestyle=(0, (1, 2)))
        axes.annotate(
            f"trained on {length:,}", (length, 1.0), xycoords=("data", "axes fraction"), xytext=(3, 2),
            textcoords="offset points", fontsize=7, color="#777777",
        )  # fmt: skip
    axes.set_xscale("log", base=2)
    axes.set_xticks([b.stop for b in found.buckets], [f"{b.stop:,}" for b in found.buckets], rotation=45)
    axes.minorticks_off()
    axes.set_xlabel("tokens read before", fontsize=9, color=INK)
    plain(axes)


Of = Callable[[Curve], Sequence[Value]]


def _rows(found: Positions, shown: Sequence[Curve], of: Of, form: str, *, ends: bool = False) -> list[list[str]]:
    """A row per bucket; a cell per curve, empty where it does not reach. ends: with the interval."""
    return [
        [str(bucket), *(_cell(of(curve)[k], form, ends=ends) if k < len(of(curve)) else "" for curve in shown)]
        for k, bucket in enumerate(found.buckets)
    ]


def _cell(value: Value, form: str, *, ends: bool) -> str:
    text = form.format(value.value) + (f" [{form.format(value.low)}, {form.format(value.high)}]" if ends else "")
    return text.replace("-", "−")


def _grid(found: Positions, shown: Sequence[Curve], of: Of, form: str) -> list[str]:
    titles = ["tokens read", *(curve.label for curve in shown)]
    rows = _rows(found, shown, of, form, ends=True)
    return [f"| {' | '.join(titles)} |", "|---:" * len(titles) + "|", *(f"| {' | '.join(row)} |" for row in rows)]
