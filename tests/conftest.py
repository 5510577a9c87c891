"""What holds for every test."""

import gc

import pytest
from hypothesis import settings

# How long an example takes is no property: the first one may compile kernels, on a machine that does other things too.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


def pytest_collection_finish() -> None:
    """What is loaded by now stays: engines collect garbage, and need not look through all of torch each time."""
    gc.collect()
    gc.freeze()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rewrite-golden", action="store_true", help="write the losses of trainer/test_golden.py anew")
