"""datatrove: its four MinHash stages with `LocalPipelineExecutor`, as in its example, each shard a task.

signatures → buckets → clusters → filter, whose dropped documents are the list
"""

from __future__ import annotations

import gzip
import importlib.metadata  # noqa: F401 - datatrove 0.9.0 uses it without importing it
import json
import sys
from pathlib import Path

from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.dedup import (
    MinhashDedupBuckets,
    MinhashDedupCluster,
    MinhashDedupFilter,
    MinhashDedupSignature,
)
from datatrove.pipeline.dedup.minhash import MinhashConfig
from datatrove.pipeline.readers import ParquetReader
from datatrove.pipeline.writers import JsonlWriter
from datatrove.utils.hashing import HashConfig
from datatrove.utils.typeshelper import Languages


def main(corpus: Path, out: Path, processes: int, bands: int, rows: int) -> None:
    tasks = len(list((corpus / "parquet").iterdir()))
    config = MinhashConfig(
        n_grams=5, num_buckets=bands, hashes_per_bucket=rows, hash_config=HashConfig(precision=64, hash_fc="xxhash")
    )
    reader = ParquetReader(str(corpus / "parquet"), text_key="text", id_key="id")

    def run(name: str, steps: list[PipelineStep], count: int) -> None:
        executor = LocalPipelineExecutor(steps, tasks=count, workers=processes, logging_dir=str(out / "logs" / name))
        executor.run()

    signatures, buckets, removed = (str(out / name) for name in ("signatures", "buckets", "remove"))
    run("1", [reader, MinhashDedupSignature(signatures, config, language=Languages.english)], tasks)
    run("2", [MinhashDedupBuckets(signatures, buckets, config=config)], bands)
    run("3", [MinhashDedupCluster(buckets, removed, config=config)], 1)
    dropped, kept = JsonlWriter(str(out / "dropped")), JsonlWriter(str(out / "kept"))
    run("4", [reader, MinhashDedupFilter(removed, exclusion_writer=dropped), kept], tasks)
    with (out / "removed.txt").open("w") as file:
        for path in sorted((out / "dropped").glob("*.jsonl.gz")):
            with gzip.open(path, "rt", encoding="utf-8") as lines:
                file.writelines(json.loads(line)["id"] + "\n" for line in lines)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), *map(int, sys.argv[3:6]))
