"""What holds for every test."""

import gc
import os

import pytest
from hypothesis import settings

# Tests run beside each other. A worker of a run would take all cores, as it should where a user starts it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# How long an example takes is no property: the first one may compile kernels, on a machine that does other things too.
settings.register_profile("quick", deadline=None, max_examples=40)
settings.register_profile("thorough", deadline=None, max_examples=400)  # of `make test-properties`
settings.load_profile("quick")


def pytest_collection_finish() -> None:
    """What is loaded by now stays: engines collect garbage, and need not look through all of torch each time."""
    gc.collect()
    gc.freeze()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rewrite-golden", action="store_true", help="write the losses of trainer/test_golden.py anew")
