"""What Megatron-LM, GPT-NeoX and NeMo are told of a mixture: per phase, how many tokens of which dataset.

    blends/<phase>.txt        weight and prefix, a line per dataset: Megatron's --data-args-path, or --data-path
    blends/<phase>.neox.yml   the same for GPT-NeoX

Weights are the tokens that the phase draws. These programs repeat a dataset as often as its weight and the length of
the training ask for, so a training of as many tokens as the phase has draws from each dataset what Winnow draws.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import yaml

from dataproc.export.datasets import Dataset
from dataproc.shares import apportion
from manifest.mixture import Mixture, Phase

Blend = list[tuple[int, str]]
"""(tokens, prefix) of each dataset that is drawn from."""


def blend(mixture: Mixture, phase: Phase, datasets: Mapping[str, Sequence[Dataset]]) -> Blend:
    """What a phase draws. datasets: by stream, end to end; what is drawn of a stream is shared by their tokens."""
    drawn = dict.fromkeys(mixture.streams, 0)
    for view, blocks in phase.draw.items():
        drawn[mixture.views[view].stream] += blocks * mixture.block_tokens
    found: Blend = []
    for stream, tokens in drawn.items():
        shares = apportion({dataset.prefix: dataset.tokens for dataset in datasets[stream]}, tokens)
        found += [(share, prefix) for prefix, share in shares.items() if share]
    return found


def megatron_text(found: Blend, directory: Path) -> str:
    """A line per dataset. The prefixes are absolute, for a training is started anywhere."""
    return "".join(f"{tokens} {directory / prefix}\n" for tokens, prefix in found)


def neox_text(found: Blend, directory: Path, labels: Mapping[str, str]) -> str:
    """A file of configuration. GPT-NeoX wants paths for validation and test as well, or for none.

    labels: the prefix of each dataset that has labels. If one has, all have to; tokens are labels of which all count.
    """
    paths = [str(directory / prefix) for _, prefix in found]
    weights = [float(tokens) for tokens, _ in found]
    splits = ("train", "valid", "test")
    fields: dict[str, object] = {
        "data_impl": "mmap",
        "tokenizer_type": "HFTokenizer",
        "vocab_file": str(directory / "tokenizer" / "tokenizer.json"),
        **{f"{split}_data_paths": list(paths) for split in splits},
        **{f"{split}_data_weights": list(weights) for split in splits},
    }
    if any(prefix in labels for _, prefix in found):
        named = [str(directory / labels.get(prefix, prefix)) for _, prefix in found]
        fields |= {f"{split}_label_data_paths": list(named) for split in splits}
    return yaml.safe_dump(fields, sort_keys=False, allow_unicode=True, width=10_000)


def file_names(mixture: Mixture) -> dict[str, str]:
    """What the files of each phase are called."""
    names = [re.sub(r"[^A-Za-z0-9_-]", "_", phase.name) for phase in mixture.phases]
    if len(set(names)) < len(names) or not all(names):
        names = [f"{number}-{name}" for number, name in enumerate(names)]
    return {phase.name: name for phase, name in zip(mixture.phases, names, strict=True)}


NEVER_CARRIED = (
    "The order: they shuffle by a seed of their own, so which documents a step saw cannot be told with `trainer audit` "
    "or `manifest exposure`.",
    "Caps on epochs: a longer training, or other weights, repeats datasets without a word. Phases are trainings that "
    "follow each other; the next one begins each dataset anew, where Winnow goes on where it stopped.",
)
"""What the other programs do not do, whatever the mixture."""


def not_carried(mixture: Mixture) -> Iterator[str]:
    """What of this mixture they do not do, a sentence each."""
    fim = [f"{name} ({view.fim:g})" for name, view in mixture.views.items() if view.fim]
    if fim:
        yield f"Fill-in-the-middle, of these views and shares: {', '.join(fim)}. Their tokens are here as plain text."
    masked = [name for name, stream in mixture.streams.items() if any(shard.mask for shard in stream.shards)]
    if masked:
        yield (
            f"Masks, but to GPT-NeoX: of {', '.join(masked)} only a part of each document is to be learned. The "
            "datasets `…_label_document` have -100 for what is not, and blends for GPT-NeoX name them; Megatron-LM and "
            "NeMo learn all tokens of an indexed dataset, unless code of yours reads the labels beside it."
        )
    if mixture.heldout is not None:
        yield "The held-out documents, which have no tokens; `--format parquet` has their text."
