"""The card of a Parquet export: what the Hub and `datasets` read (a YAML header), and what a person does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import yaml

from dataproc.export.contents import HELDOUT, TRAIN, Config, Contents
from dataproc.licences import hub_ids
from dataproc.report import COLUMNS
from manifest.mixture import Mixture, Phase

DTYPES = {pa.bool_(): "bool", pa.float32(): "float32", pa.float64(): "float64"}
SIZES = ("n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M", "100M<n<1B", "1B<n<10B")
LARGER = ("10B<n<100B", "100B<n<1T", "n>1T")
SHOWN_LICENCES = 20


def card(contents: Contents, command: str) -> str:
    """README.md. command: that made the export."""
    fields = yaml.safe_dump(header(contents), sort_keys=False, allow_unicode=True, width=10_000)
    return f"---\n{fields}---\n\n" + "\n".join(_page(contents, command)) + "\n"


def header(contents: Contents) -> dict[str, Any]:
    """The fields of the YAML header."""
    licences = hub_ids(contents.all.licences)
    configs = [contents.all, *contents.streams]
    return {
        "pretty_name": contents.mixture.name,
        **({"license": licences} if licences else {}),
        "task_categories": ["text-generation"],
        "size_categories": [size_category(contents.all.rows(TRAIN) + contents.all.rows(HELDOUT))],
        "tags": ["winnow", "deduplicated"],
        "configs": [_config(config, default=config is contents.all) for config in configs],
        "dataset_info": [_info(config, contents.schema) for config in configs],
    }


def size_category(documents: int) -> str:
    """The Hub's name for a dataset of so many rows."""
    names = (*SIZES, *LARGER)
    place = next((p for p in range(len(names) - 1) if documents < 1000 * 10**p), len(names) - 1)
    return names[place]


def _config(config: Config, *, default: bool) -> dict[str, Any]:
    files = [
        {"split": split, "path": patterns[0] if len(patterns) == 1 else patterns}
        for split, patterns in config.patterns.items()
    ]
    return {"config_name": config.name, **({"default": True} if default else {}), "data_files": files}


def _info(config: Config, schema: pa.Schema) -> dict[str, Any]:
    splits = [
        {"name": split, "num_bytes": config.memory_bytes(split), "num_examples": config.rows(split)}
        for split in config.patterns
    ]
    features = [{"name": field.name, "dtype": _dtype(field.type)} for field in schema]
    known = all(feature["dtype"] for feature in features)
    return {
        "config_name": config.name,
        **({"features": features} if known else {}),  # or else `datasets` takes them from the files
        "splits": splits,
        "download_size": config.file_bytes,
        "dataset_size": sum(split["num_bytes"] for split in splits),
    }


def _dtype(kind: pa.DataType) -> str | None:
    """What `datasets` calls a type; None for one that is not a plain value."""
    if pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return str(kind)
    return DTYPES.get(kind)


def _page(contents: Contents, command: str) -> Iterator[str]:
    mixture = contents.mixture
    yield f"# {mixture.name}"
    yield ""
    yield (
        f"A deduplicated corpus for training language models: {contents.all.rows(TRAIN):,} documents "
        f"({contents.all.text_bytes / 1e6:,.1f} MB of text in UTF-8) in {len(contents.streams)} streams, and "
        f"{contents.all.rows(HELDOUT):,} documents that are held out of training, made by Winnow."
    )
    yield from ("", "## Loading", "", *_loading(contents))
    yield from ("", "## Streams", "", *_streams(contents))
    yield from ("", "## What became of each source (documents)", "", *_sources(mixture))
    yield from ("", "## Phases", "", *_phases(mixture))
    yield from ("", "## Licences", "", *_licences(contents))
    yield from ("", "## How it was made", "", *_made(mixture, command))


def _loading(contents: Contents) -> Iterator[str]:
    first = contents.streams[0].name
    held = ', split="heldout"' if HELDOUT in contents.all.patterns else ', split="train"'
    yield from (
        "```python",
        "from datasets import load_dataset",
        "",
        'load_dataset("path/to/this/directory", split="train", streaming=True)   # every stream',
        f'load_dataset("path/to/this/directory", "{first}"{held})',
        "```",
        "",
        "`id` names a document (`<source>/…`), `text` is its text, `source` its source, and `meta` is JSON: the other "
        "fields of its raw record.",
    )
    others = [field.name for field in contents.schema if field.name not in ("id", "text", "source", "meta")]
    if others:
        yield f"Further columns, null where a document has none: {', '.join(f'`{name}`' for name in others)}."


def _streams(contents: Contents) -> Iterator[str]:
    rows = [
        [
            *(config.name, ", ".join(sorted(config.sources))),
            *(f"{config.rows(TRAIN):,}", f"{config.rows(HELDOUT):,}"),
            *(f"{config.text_bytes:,}", f"{contents.mixture.streams[config.name].tokens:,}"),
        ]
        for config in contents.streams
    ]
    yield from _table(["stream", "of", "documents", "held out", "bytes of text", "tokens"], rows, left=2)
    for name, view in contents.mixture.views.items():
        chosen = [f"{field} in {', '.join(map(str, values))}" for field, values in view.where.items()]
        if isinstance(view.part, tuple):
            chosen.append(f"a hash of the id in [{view.part[0]:g}, {view.part[1]:g}) of all hashes")
        elif view.part is not None:
            chosen.append(f"an {view.part} hash of the id")
        if chosen and name == view.stream:
            yield from ("", f"`{name}` has the documents of `{view.of}` with {'; '.join(chosen)}.")
        if view.template is not None and name == view.stream:
            yield from ("", f"`{name}` is trained on as the template `{view.template}` writes it; here it is plain.")
    if contents.shared:
        yield from (
            "",
            f"Some of {', '.join(contents.shared)} have documents of the same source; what is in several of them comes "
            f"as often in `{contents.all.name}`.",
        )


def _sources(mixture: Mixture) -> Iterator[str]:
    """What each stage took, from the mixture's own counts."""
    sources: dict[str, dict[str, int]] = mixture.summary.get("sources", {})
    shown = [(title, key) for title, key in COLUMNS if key == "source" or any(key in row for row in sources.values())]
    titles = [title.replace("-\n", "").replace("\n", " ") for title, _ in shown]
    rows = [[name, *(f"{row.get(key, 0):,}" for _, key in shown[1:])] for name, row in sources.items()]
    yield from _table(titles, rows)


def _phases(mixture: Mixture) -> Iterator[str]:
    rows = [row for phase in mixture.phases for row in _phase_rows(mixture, phase)]
    yield from _table(["phase", "view", "tokens", "weight", "epochs"], rows, left=2)


def _phase_rows(mixture: Mixture, phase: Phase) -> Iterator[list[str]]:
    for name, blocks in phase.draw.items():
        epochs = blocks / mixture.streams[mixture.views[name].stream].blocks
        tokens = blocks * mixture.block_tokens
        yield [phase.name, name, f"{tokens:,}", f"{blocks / max(phase.blocks, 1):.1%}", f"{epochs:.2f}"]


def _licences(contents: Contents) -> Iterator[str]:
    named = contents.all.licences
    if not named:
        yield "The documents' metadata names no licence. The raw sources have their own terms."
        return
    yield "As the documents' own metadata names them; a document may name several, and many may name none:"
    yield ""
    shown = named.most_common(SHOWN_LICENCES)
    yield from _table(["licence", "documents"], [[_cell(name), f"{count:,}"] for name, count in shown])
    if len(named) > len(shown):
        yield from ("", f"… and {len(named) - len(shown):,} more names.")


def _made(mixture: Mixture, command: str) -> Iterator[str]:
    yield (
        f"From the mixture `{mixture.name}`, id `{mixture.id}`, by `{command}`. The mixture was built by `dataproc "
        "build recipe.yaml --raw RAW --out STORE` from the recipe beside this page; the same recipe over the same raw "
        f"files has the same id. Tokens are those of a tokenizer of {mixture.tokenizer.vocab_size:,} entries (digest "
        f"`{mixture.tokenizer.digest}`)."
    )
    yield from ("", *_table(["stream", "id of its tokens"], [[n, f"`{s.id}`"] for n, s in mixture.streams.items()]))
    clusters = mixture.summary.get("clusters", {})
    for group, found in clusters.items():
        bands, rows = found["bands"]
        yield ""
        yield (
            f"Near-duplicates ({group}): {found['clusters']:,} clusters of {found['clustered_documents']:,} documents, "
            f"found with {bands} bands of {rows} rows of MinHash."
        )


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1) -> Iterator[str]:
    yield f"| {' | '.join(titles)} |"
    yield f"|{'---|' * left}{'---:|' * (len(titles) - left)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
