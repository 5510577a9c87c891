"""What checkpoints do when the disk does not."""

from __future__ import annotations

import errno
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from trainer.checkpoint import _save_file


@pytest.fixture
def small_files_only() -> Iterator[None]:
    """The system refuses to let a file grow beyond 4 kB, as a full disk would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.usefixtures("small_files_only")
def test_a_file_that_cannot_be_written_is_an_error_of_the_system_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="weights") as caught:
        _save_file(tmp_path / "weights-00000.safetensors", {"a": torch.zeros(10_000)})
    assert caught.value.errno == errno.EFBIG
