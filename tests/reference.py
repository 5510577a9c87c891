"""Real text with its exact answers, for tests that say so: WINNOW_DATA, else `shared/data` beside the repository."""

import os
from pathlib import Path

import pytest

DATA = Path(os.environ.get("WINNOW_DATA", Path(__file__).parents[2] / "shared" / "data"))
RAW = DATA / "raw"
TRUTH = DATA / "truth" / "dedup_exact"

needs_raw = pytest.mark.skipif(not RAW.exists(), reason=f"no raw text at {DATA}; set WINNOW_DATA")
needs_truth = pytest.mark.skipif(
    not (TRUTH / "SUMMARY.json").exists(), reason=f"no reference corpus at {DATA}; set WINNOW_DATA"
)
