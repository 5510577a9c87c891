"""A fertility report → a table for the terminal, a page of Markdown, and a picture."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from rich.table import Table

from dataproc.vocab.fertility import Fertility

if TYPE_CHECKING:  # it takes a second to import
    from matplotlib.axes import Axes

INK = "#222222"
COLOURS = ("#b03a06", "#2f6fab", "#4d8f3c", "#8a5aa8", "#b08a06", "#5f5f5f")
DPI = 150


def table(found: Fertility) -> Table:
    made = Table(box=None, pad_edge=False, header_style="bold")
    for column, title in enumerate(_titles(found)):
        made.add_column(title, justify="left" if column == 0 else "right", vertical="bottom", no_wrap=True)
    for row in _rows(found):
        made.add_row(*row)
    return made


def page(found: Fertility) -> str:
    titles = _titles(found)
    lines = [
        "# Tokens of text",
        "",
        f"A word is what stands {found.word}. The last column says how many tokens fewer (−) or more (+) a source "
        "takes than in its first row.",
        "",
        "![Tokens per word and bytes per token](fertility.png)",
        "",
        f"| {' | '.join(titles)} |",
        f"|---|{'---:|' * (len(titles) - 1)}",
        *(f"| {' | '.join(row)} |" for row in _rows(found)),
        "",
        "| source | documents | words | bytes |",
        "|---|---:|---:|---:|",
        *(f"| {name} | {text.documents:,} | {text.words:,} | {text.bytes:,} |" for name, text in found.text.items()),
    ]
    return "\n".join(lines) + "\n"


def picture(found: Fertility) -> bytes:
    """Against the number of new tokens, a line per source; or bars per tokenizer. As a PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 3.8), layout="constrained")
    panels: list[Axes] = list(figure.subplots(1, 2))
    for axes, title in zip(panels, ("tokens per word", "bytes per token"), strict=True):
        key = title.replace(" ", "_")
        (_curves if found.curve else _bars)(axes, found, key)
        axes.set_title(title, fontsize=10, color=INK, loc="left")
        axes.set_ylim(bottom=0)
        axes.grid(axis="y", color="#e8e8e8", linewidth=0.7)
        axes.tick_params(labelsize=8, colors=INK)
        for side, spine in axes.spines.items():
            spine.set_visible(side in ("left", "bottom"))
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    written = io.BytesIO()
    figure.savefig(written, format="png", dpi=DPI, metadata={"Software": None})
    return written.getvalue()


def _curves(axes: Axes, found: Fertility, key: str) -> None:
    names = found.names
    for place, source in enumerate(found.text):
        colour = COLOURS[place % len(COLOURS)]
        for style, name in zip(("-", "--", ":", "-.") * len(names), names, strict=False):
            points = found.of(name)
            values = [getattr(point.sources[source], key) for point in points]
            label = source if len(names) == 1 else f"{source}, {name}"
            if len(points) == 1:
                axes.axhline(values[0], color=colour, linestyle=style, linewidth=1, label=label)
            else:
                at = [point.new or 0 for point in points]
                axes.plot(at, values, color=colour, linestyle=style, marker="o", markersize=3, label=label)
    axes.set_xlabel("new tokens", fontsize=8, color=INK)


def _bars(axes: Axes, found: Fertility, key: str) -> None:
    width = 0.8 / len(found.points)
    for place, point in enumerate(found.points):
        at = [number + place * width for number in range(len(found.text))]
        values = [getattr(point.sources[source], key) for source in found.text]
        axes.bar(at, values, width * 0.9, align="edge", color=COLOURS[place % len(COLOURS)], label=point.tokenizer)
    axes.set_xticks([number + 0.4 for number in range(len(found.text))], list(found.text))


def _titles(found: Fertility) -> list[str]:
    named = ["tokenizer"] if len(found.names) > 1 else []
    return ["source", *named, "new tokens", "vocabulary", "tokens/word", "bytes/token", "tokens"]


def _rows(found: Fertility) -> list[list[str]]:
    first = found.points[0]
    return [
        [
            source,
            *([point.tokenizer] if len(found.names) > 1 else []),
            "–" if point.new is None else f"{point.new:,}",
            f"{point.vocab_size:,}",
            f"{point.sources[source].tokens_per_word:.2f}",
            f"{point.sources[source].bytes_per_token:.2f}",
            "" if point is first else _change(point.sources[source].tokens, first.sources[source].tokens),
        ]
        for source in found.text
        for point in found.points
    ]


def _change(tokens: int, before: int) -> str:
    share = tokens / max(before, 1) - 1
    if tokens == before:
        return "same"
    return "< 0.1 % " + ("fewer" if share < 0 else "more") if abs(share) < 0.0005 else f"{share:+.1%}".replace("-", "−")
