"""Losses by position → a table for the terminal, a page of Markdown, and a picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
    """Loss over position on a logarithmic axis: a colour per checkpoint, dashes where its slopes are interpolated."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.0, 4.4), layout="constrained")
    axes: Axes = figure.subplots()
    colours = dict(zip(found.checkpoints, COLOURS * len(found.checkpoints), strict=False))
    drawn: dict[str, int] = {}
    for curve in found.curves:
        style = STYLES[drawn.get(curve.checkpoint, 0) % len(STYLES)]
        drawn[curve.checkpoint] = drawn.get(curve.checkpoint, 0) + 1
        _line(axes, found, curve, colours[curve.checkpoint], style)
    for length in sorted({item.trained_length for item in found.checkpoints.values()}):
        axes.axvline(length, color="#999999", linewidth=0.8, linestyle=(0, (1, 2)))
        axes.annotate(
            f"trained on {length:,}", (length, 1.0), xycoords=("data", "axes fraction"), xytext=(3, -9),
            textcoords="offset points", fontsize=7, color="#777777",
        )  # fmt: skip
    axes.set_xscale("log", base=2)
    axes.set_xticks([b.stop for b in found.buckets], [f"{b.stop:,}" for b in found.buckets], rotation=45)
    axes.minorticks_off()
    axes.set_xlabel("tokens read before", fontsize=9, color=INK)
    axes.set_ylabel("loss, nats per token", fontsize=9, color=INK)
    axes.legend(fontsize=8, frameon=False)
    plain(axes)
    return png(figure)


def _line(axes: Axes, found: Positions, curve: Curve, colour: str, style: str) -> None:
    known = found.buckets[: len(curve.losses)]
    at = [(bucket.first * bucket.stop) ** 0.5 for bucket in known]  # the middle on a logarithmic axis
    axes.plot(
        at, [v.value for v in curve.losses], style, color=colour, marker="o", markersize=2.5, linewidth=1.5,
        label=curve.label,
    )  # fmt: skip
    if curve.scale == 1:
        lows, highs = [v.low for v in curve.losses], [v.high for v in curve.losses]
        axes.fill_between(at, lows, highs, color=colour, alpha=0.1, linewidth=0)


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
