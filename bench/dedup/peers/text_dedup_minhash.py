"""text-dedup: `python -m text_dedup.minhash` with a config.toml, as its README shows.

Bands are its own choice for J 0.8 and 128 permutations (9 × 13). Its option `check_false_positive` compares all pairs
within a cluster in Python; a cluster of 2,000 has 2 million, so it is off by default, as it is in the package.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

CONFIG = """
[input]
input_type = "local_files"
file_type = "parquet"
[input.read_arguments]
path = "parquet"
data_files = "{corpus}/parquet/*.parquet"
split = "train"
cache_dir = "{out}/cache"
[algorithm]
algorithm_name = "minhash"
text_column = "text"
seed = 42
num_perm = 128
threshold = 0.8
hash_bits = 64
ngram_size = 5
num_proc = {processes}
check_false_positive = {checked}
[output]
output_dir = "{out}/output"
clean_cache = false
save_clusters = false
keep_index_column = false
[debug]
enable_profiling = false
"""


def main(corpus: Path, out: Path, processes: int, checked: bool) -> None:
    text = CONFIG.format(corpus=corpus, out=out, processes=processes, checked=str(checked).lower())
    Path("config.toml").write_text(text)  # it is read from the working directory
    sys.argv = ["text_dedup.minhash"]
    runpy.run_module("text_dedup.minhash", run_name="__main__")
    import pyarrow.parquet as pq
    from datasets import load_from_disk

    kept = set(load_from_disk(str(out / "output"))["id"])
    ids = [name for shard in sorted((corpus / "parquet").iterdir()) for name in pq.read_table(shard)["id"].to_pylist()]
    (out / "removed.txt").write_text("".join(f"{name}\n" for name in ids if name not in kept))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4:] == ["checked"])
