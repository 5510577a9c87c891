"""Cells → the study's files: study.md, study.json, study.html and study.png."""

from __future__ import annotations

import base64
import html
import json
import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.study.grid import StudyRecipe
from gateway.study.results import ALL, Cell, Documents, Figure, baseline_value, difference
from trainer.pictures import COLOURS, plain, png

if TYPE_CHECKING:  # it takes a second to import
    from matplotlib.axes import Axes

NOTE = (
    "Bits per byte of held-out text, lower is better: the mean over seeds; in brackets the 95 % interval over "
    "documents (bootstrap); ± the standard deviation over seeds. ★: the best of its line by "
)
STYLE = (
    "body{font:15px/1.5 sans-serif;margin:2rem}td,th{padding:.2rem .7rem;text-align:left;white-space:nowrap}"
    ".wide{overflow-x:auto}.wide img{min-width:50rem;max-width:100%}@media(max-width:40rem){body{margin:1rem}}"
)

NOT_SAID = frozenset({"documents", "baseline", "figures", "origins"})
"""Fields of a cell that study.json leaves out, or says in its own way."""

Table = list[list[str]]


def write_pages(recipe: StudyRecipe, cells: Sequence[Cell], out: Path) -> Path:
    """Writes the files, each whole or not at all; returns the Markdown's path."""
    out.mkdir(parents=True, exist_ok=True)
    picture = picture_png(recipe, cells) if any(cell.figures for cell in cells) else None
    tables = {
        "Arms": arms_table(cells, recipe.best_by or ALL),
        "Best of each line, less the first line's best (paired)": best_table(cells),
        "Less the model that the arm started from (paired)": baseline_table(cells),
        "Where the figures come from (winnow lineage goes on from there)": origins_table(cells),
    }
    lists = {"Best at an edge of the grid": edges(cells), "Failed": [f for cell in cells for f in cell.failures]}
    if picture is not None:
        _write(out / "study.png", picture)
    _write(out / "study.json", json.dumps(as_json(recipe, cells), indent=1, ensure_ascii=False).encode())
    note = f"{NOTE}{recipe.best_by or 'all sources'}."
    _write(out / "study.html", _html(recipe.name, note, tables, lists, picture).encode())
    _write(out / "study.md", _markdown(recipe.name, note, tables, lists).encode())
    return out / "study.md"


def _write(file: Path, content: bytes) -> None:
    aside = file.with_name(f".{file.name}.{os.getpid()}")
    aside.write_bytes(content)
    aside.replace(file)


def arms_table(cells: Sequence[Cell], best_by: str) -> Table:
    """A head and a row per cell. best_by: the source in whose column the best of a line is marked."""
    sources = _sources(cells)
    rows = [[*cells[0].labels, "seeds", "tokens", *sources]]
    for cell in cells:
        seeds = " ".join(map(str, cell.seeds)) or "–"
        marks = {best_by: " ★"} if cell.best else {}
        values = [_said(cell.figures[n]) + marks.get(n, "") if n in cell.figures else "failed" for n in sources]
        rows.append([*cell.labels.values(), seeds, f"{cell.tokens:,}", *values])
    return rows


def edges(cells: Sequence[Cell]) -> list[str]:
    """The lines whose best rate is the lowest or the highest that was tried: a better one may lie beyond."""
    found = []
    for best in (cell for cell in cells if cell.best and cell.rate is not None):
        rates = [cell.rate for cell in cells if cell.line == best.line and cell.rate is not None]
        if len(rates) > 1 and best.rate in (min(rates), max(rates)):
            found.append(f"{best.line or 'all arms'}: {best.rate:g}, of {min(rates):g} to {max(rates):g}")
    return found


def best_table(cells: Sequence[Cell]) -> Table:
    """The best cell of each line against that of the first line."""
    best = [cell for cell in cells if cell.best]
    sources = _sources(cells)
    rows = [["line", "rate", *sources]]
    for cell in best[1:]:
        said = [_less(cell, best[0].documents, name) for name in sources]
        rows.append([f"{cell.line} less {best[0].line}", "–" if cell.rate is None else f"{cell.rate:g}", *said])
    return rows


def baseline_table(cells: Sequence[Cell]) -> Table:
    """A head, and each cell against what its arms started from; the head alone if that was not scored."""
    sources = _sources(cells)
    rows = [[*cells[0].labels, *sources]]
    for cell in cells:
        if cell.baseline and cell.figures:
            rows.append([*cell.labels.values(), *(_less(cell, cell.baseline, name) for name in sources)])
    return rows


def origins_table(cells: Sequence[Cell]) -> Table:
    """A head, and for each arm its checkpoint and its report; last the reports of what arms started from."""
    rows = [[*cells[0].labels, "seed", "checkpoint", "report"]]
    for cell in cells:
        rows += [[*cell.labels.values(), str(o.seed), o.checkpoint, o.report] for o in cell.origins]
    blank = [""] * len(cells[0].labels)
    baselines = dict.fromkeys(cell.baseline_report for cell in cells if cell.baseline_report is not None)
    return rows + [[*blank, "", "what arms started from", report] for report in baselines]


def as_json(recipe: StudyRecipe, cells: Sequence[Cell]) -> dict[str, Any]:
    """All that the tables say, as numbers."""
    best = [cell for cell in cells if cell.best]
    return {
        "study": recipe.model_dump(mode="json"),
        "cells": [
            {
                **{key: value for key, value in vars(cell).items() if key not in NOT_SAID},
                "figures": {name: asdict(figure) for name, figure in cell.figures.items()},
                "origins": [asdict(origin) for origin in cell.origins],
                "less_baseline": {
                    name: asdict(found)
                    for name in cell.figures
                    if (found := difference(cell, cell.baseline, name)) is not None
                },
            }
            for cell in cells
        ],
        "differences": [
            {"line": cell.line, "from": best[0].line, "source": name, **asdict(found)}
            for cell in best[1:]
            for name in cell.figures
            if (found := difference(cell, best[0].documents, name)) is not None
        ],
    }


def _sources(cells: Sequence[Cell]) -> list[str]:
    return list(dict.fromkeys(name for cell in cells for name in cell.figures))


def _said(figure: Figure, sign: str = "") -> str:
    text = f"{figure.value:{sign}.4f}"
    if figure.low is not None and figure.high is not None:
        text += f" [{figure.low:{sign}.4f}, {figure.high:{sign}.4f}]"
    return text if figure.sd is None else f"{text} ± {figure.sd:.4f}"


def _less(cell: Cell, other: Documents, source: str) -> str:
    found = difference(cell, other, source)
    return "other documents" if found is None else _said(found, sign="+")


def _markdown(name: str, note: str, tables: dict[str, Table], lists: dict[str, list[str]]) -> str:
    lines = [f"# Study {name}", "", note, ""]
    for title, table in tables.items():
        if len(table) > 1:
            lines += [f"## {title}", "", *_rows(table), ""]
    for title, texts in lists.items():
        if texts:
            lines += [f"## {title}", "", *(f"- {' '.join(text.split())}" for text in texts), ""]
    return "\n".join(lines)


def _rows(table: Table) -> Iterator[str]:
    for number, row in enumerate(table):
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"
        if number == 0:
            yield "|" + "---|" * len(row)


def _html(name: str, note: str, tables: dict[str, Table], lists: dict[str, list[str]], picture: bytes | None) -> str:
    title = html.escape(f"Study {name}")
    parts = [f"<h1>{title}</h1><p>{html.escape(note)}</p>"]
    if picture is not None:
        encoded = base64.b64encode(picture).decode()
        image = f'<img alt="bits per byte of each arm" src="data:image/png;base64,{encoded}">'
        parts.append(f'<div class="wide">{image}</div>')
    for heading, table in tables.items():
        if len(table) > 1:
            body = "".join(_html_row(row, "td") for row in table[1:])
            rows = f"<table>{_html_row(table[0], 'th')}{body}</table>"
            parts.append(f'<h2>{html.escape(heading)}</h2><div class="wide">{rows}</div>')
    for heading, texts in lists.items():
        if texts:
            items = "".join(f"<li>{html.escape(text)}</li>" for text in texts)
            parts.append(f"<h2>{html.escape(heading)}</h2><ul>{items}</ul>")
    viewport = '<meta name="viewport" content="width=device-width">'
    head = f'<meta charset="utf-8">{viewport}<title>{title}</title><style>{STYLE}</style>'
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(parts)}</body></html>\n'


def _html_row(row: Sequence[str], tag: str) -> str:
    return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in row) + "</tr>"


def picture_png(recipe: StudyRecipe, cells: Sequence[Cell]) -> bytes:
    """A panel per source: bits per byte over the rate, a line per setting of the other axes, the best marked. What the
    arms started from is a dotted line, where it is near.
    """
    from matplotlib.figure import Figure as Picture

    sources = _sources(cells)
    picture = Picture(figsize=(3.6 * len(sources), 3.4), layout="constrained")
    panels = picture.subplots(1, len(sources), squeeze=False)[0]
    for panel, source in zip(panels, sources, strict=True):
        _panel(panel, [cell for cell in cells if source in cell.figures], source, rates=recipe.rate is not None)
        panel.set_title(source, fontsize=9)
        panel.set_xlabel(recipe.rate or "", fontsize=9)
    panels[0].set_ylabel("bits per byte", fontsize=9)
    if recipe.rate is not None and len(recipe.axes) > 1:
        lines, names = panels[0].get_legend_handles_labels()
        columns = min(len(names), 2 * len(sources))
        picture.legend(lines, names, loc="outside lower center", ncols=columns, fontsize=8, frameon=False)
    return png(picture)


def _panel(panel: Axes, cells: Sequence[Cell], source: str, *, rates: bool) -> None:
    lines = list(dict.fromkeys(cell.line for cell in cells))
    for number, line in enumerate(lines):
        own = [cell for cell in cells if cell.line == line]
        x = [number if cell.rate is None else cell.rate for cell in own]
        figures = [cell.figures[source] for cell in own]
        y = [figure.value for figure in figures]
        spread = [figure.sd or 0.0 for figure in figures]  # over seeds: the documents are the same for all arms
        colour = COLOURS[number % len(COLOURS)]
        panel.errorbar(x, y, yerr=spread, color=colour, marker="o", markersize=3, linewidth=1.2, label=line)
        if rates:
            best = [(place, value) for place, value, cell in zip(x, y, own, strict=True) if cell.best]
            panel.plot(*zip(*best, strict=True), marker="*", markersize=12, color=colour, linestyle="")
    _draw_baselines(panel, {value for cell in cells if (value := baseline_value(cell, source)) is not None})
    at = sorted({cell.rate for cell in cells if cell.rate is not None})
    if rates:
        if min(at, default=0) > 0:
            panel.set_xscale("log")
        panel.set_xticks(at, [f"{rate:g}" for rate in at], fontsize=8)
        panel.minorticks_off()
    else:
        panel.set_xticks(range(len(lines)), lines, fontsize=7, rotation=20)
    plain(panel)


def _draw_baselines(panel: Axes, values: Collection[float]) -> None:
    """Dotted lines, unless they are so far off that the arms could not be told apart any more."""
    low, high = panel.get_ylim()
    for value in values:
        if low - (high - low) < value < high + (high - low):
            panel.axhline(value, color="0.5", linewidth=0.8, linestyle=":")
