"""The README of an export for Megatron: what is there, how to train on it, what it does not carry."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from dataproc.export.blend import NEVER_CARRIED, file_names, not_carried
from dataproc.export.datasets import Dataset
from manifest.indexed import token_dtype
from manifest.mixture import Mixture

SEQ_LENS = (2048, 4096, 8192)


def readme(mixture: Mixture, datasets: Mapping[str, Sequence[Dataset]], directory: Path, command: str) -> str:
    """Markdown. directory: where the export will lie."""
    return "\n".join(
        [
            f"# {mixture.name} for Megatron-LM, GPT-NeoX and NeMo",
            "",
            f"The tokens of the mixture `{mixture.name}`, id `{mixture.id}`, as indexed datasets (`.bin`, `.idx`; "
            f"{token_dtype(mixture.tokenizer.vocab_size).name}, a document a sequence, each closed by token "
            f"{mixture.tokenizer.end_of_text}). Made by `{command}`. Files may be shared with the store that they came "
            "from: do not write into them.",
            "",
            *_datasets(datasets),
            "",
            "## Training",
            "",
            "Each phase is a training of its own, with its own blend and as many samples as it has tokens:",
            "",
            *_phases(mixture),
            "",
            *_programs(mixture, directory),
            "",
            "The prefixes in `blends/` are absolute. If the directory is seen under another path, change them:",
            f"`sed -i 's#{directory}#/new/path#' blends/*`",
            "",
            "## What is not carried",
            "",
            *(f"- {sentence}" for sentence in (*NEVER_CARRIED, *not_carried(mixture))),
            "",
        ]
    )


def _datasets(datasets: Mapping[str, Sequence[Dataset]]) -> Iterator[str]:
    yield from ("| stream | prefix | documents | tokens | labels |", "|---|---|---:|---:|---|")
    for stream, parts in datasets.items():
        for part in parts:
            labels = part.labelled()
            named = "all tokens" if labels is None else f"`{labels.prefix}`"
            yield f"| {stream} | `{part.prefix}` | {part.documents:,} | {part.tokens:,} | {named} |"


def _phases(mixture: Mixture) -> Iterator[str]:
    fitting = [seq_len for seq_len in SEQ_LENS if mixture.block_tokens % seq_len == 0] or [mixture.block_tokens]
    yield f"| phase | blend | tokens | {' | '.join(f'samples of {seq_len}' for seq_len in fitting)} |"
    yield f"|---|---|---:|{'---:|' * len(fitting)}"
    files = file_names(mixture)
    for phase in mixture.phases:
        tokens = phase.blocks * mixture.block_tokens
        samples = " | ".join(f"{tokens // seq_len:,}" for seq_len in fitting)
        yield f"| {phase.name} | `blends/{files[phase.name]}.txt` | {tokens:,} | {samples} |"


def _programs(mixture: Mixture, directory: Path) -> Iterator[str]:
    first = mixture.phases[0]
    seq_len = mixture.block_tokens
    samples = first.blocks
    blend = f"{directory}/blends/{file_names(mixture)[first.name]}"
    yield f"""**Megatron-LM**, for phase `{first.name}` with sequences of {seq_len}:

```
pretrain_gpt.py … --data-args-path {blend}.txt --split 100,0,0 --eval-iters 0 \\
    --tokenizer-type HuggingFaceTokenizer --tokenizer-model {directory}/tokenizer \\
    --seq-length {seq_len} --train-samples {samples}
```

A later phase is started from the checkpoint of the one before, with its own blend and samples, and `--finetune` so that
samples are counted anew. `--reset-position-ids --reset-attention-mask --eod-mask-loss` keep documents apart; without
them a window is read as one text, as Winnow does by default.

**NeMo 2**:

```python
blend = open("{blend}.txt").read().split()
data = llm.PreTrainingDataModule(paths=blend, seq_length={seq_len}, split="100,0,0", tokenizer=tokenizer, …)
```

**GPT-NeoX**: give the blend beside the files of your model (`deepy.py train.py model.yml {blend}.neox.yml`).
It names the training data as validation and test data too, since GPT-NeoX wants all three: put your own there, or set
`eval_iters: 0`."""
