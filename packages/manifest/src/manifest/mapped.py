"""A file as one read-only memory map that holds no file descriptor.

Python's `mmap` keeps a descriptor for each map, and so does NumPy's. A process may often have 1,024 of them, which a
stream of a few hundred shards would take up; maps, of which Linux allows 65,530, are enough for twenty thousand shards.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from manifest.errors import CorruptArtifact

_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.mmap.restype = ctypes.c_void_p
_LIBC.mmap.argtypes = (
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_long,  # off_t
)
_LIBC.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_LIBC.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_FAILED = ctypes.c_void_p(-1).value


class MappedFile:
    """Arrays over a file. It stays mapped as long as one of them is there."""

    def __init__(self, path: Path, *, at_random: bool = False) -> None:
        """at_random: it is read here and there, so that what lies beside need not be read ahead.

        Raises OSError if it cannot be read or mapped.
        """
        self.path = path
        descriptor = os.open(path, os.O_RDONLY)
        try:
            self.size = os.fstat(descriptor).st_size
            self._bytes: Any = _mapped(descriptor, self.size, at_random) if self.size else b""
        finally:
            os.close(descriptor)

    def head(self, size: int) -> bytes:
        """The first bytes, as many as there are."""
        return bytes(memoryview(self._bytes)[:size])

    def array(self, dtype: np.dtype[Any], offset: int, count: int) -> npt.NDArray[Any]:
        """Values from a byte on, shape (count,); nothing is read. Raises CorruptArtifact beyond the end."""
        if offset + count * dtype.itemsize > self.size:
            raise CorruptArtifact(f"{self.path} ends before what its header speaks of; build the stream again")
        if count == 0:
            return np.zeros(0, dtype)
        found = np.frombuffer(self._bytes, dtype, count, offset)
        found.flags.writeable = False
        return found

    def require_size(self, expected: int) -> None:
        """Raises CorruptArtifact if the file has another size (bytes)."""
        if self.size != expected:
            raise CorruptArtifact(f"{self.path} has {self.size} bytes; expected {expected}. Build the stream again")


def read_together(values: npt.NDArray[Any]) -> None:
    """Asks the system to read what lies in a file that is mapped at random: at once, not page by page, and no more."""
    address = values.__array_interface__["data"][0]
    start = address & -mmap.PAGESIZE
    _LIBC.madvise(start, address + values.nbytes - start, mmap.MADV_WILLNEED)  # only advice, as above


def _mapped(descriptor: int, size: int, at_random: bool) -> ctypes.Array[ctypes.c_ubyte]:
    address = _LIBC.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, descriptor, 0)
    if address == _FAILED:
        error = ctypes.get_errno()
        raise OSError(error, f"a file of {size} bytes cannot be mapped: {os.strerror(error)}")
    if at_random:
        _LIBC.madvise(address, size, mmap.MADV_RANDOM)  # only advice: nothing depends on it
    found = (ctypes.c_ubyte * size).from_address(address)
    weakref.finalize(found, _LIBC.munmap, address, size)
    return found
