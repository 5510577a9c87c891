"""Kernels → machine code that is kept on disk and runs without numba.

Numba compiles a kernel once per machine. Importing numba and starting its compiler takes half a second of every
process, most of what a worker spends before its first document, so later processes load the code with LLVM's own
linker (llvmlite) in a few milliseconds, and call it through ctypes, which lets go of the GIL.

    kernel = Native("dataproc.kernels.hashing", "hash_rows")
    kernel(data, offsets, seeds, text, hashes)

takes one-dimensional arrays and numbers; what it computes goes into its arrays, and it may return a whole number.
The file on disk says which sources, versions and CPU it was made from; if any of them differs, it is made again.
"""

import ctypes
import hashlib
import importlib
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import Any

import llvmlite
import llvmlite.binding as llvm
import numpy as np
from numpy.typing import NDArray

log = logging.getLogger(__name__)

U8 = NDArray[np.uint8]
U16 = NDArray[np.uint16]
U32 = NDArray[np.uint32]
I64 = NDArray[np.int64]
U64 = NDArray[np.uint64]
F64 = NDArray[np.float64]

_NUMBERS = {int: "i8", bool: "i8", float: "f8"}
_LOADING = Lock()
_SOURCES = Path(__file__).with_name("kernels")


class Native:
    """A kernel, by the module and the name of its function. It takes the kinds of its first call's arguments."""

    def __init__(self, module: str, function: str) -> None:
        self.module, self.function = module, function
        self._kinds: tuple[str, ...] = ()
        self._call: Any = None

    def __call__(self, *args: Any) -> int:
        kinds = tuple(_NUMBERS.get(type(arg)) or f"{arg.dtype.str[1:]}[]" for arg in args)
        with _LOADING:
            if self._call is None:
                self._kinds, self._call = kinds, self._loaded(kinds)
        assert kinds == self._kinds, f"{self.function} takes {self._kinds}, not {kinds}"
        flat: list[Any] = []
        for arg in args:
            if type(arg) in _NUMBERS:
                flat.append(arg)
            else:
                assert arg.flags.c_contiguous, self.function
                assert arg.ndim == 1, self.function
                address = arg.__array_interface__["data"][0]
                flat += (None, None, arg.size, arg.itemsize, address, arg.size, arg.itemsize)
        returned, error = ctypes.c_int64(), ctypes.c_void_p()
        failed = self._call(ctypes.byref(returned), ctypes.byref(error), *flat)
        assert not failed, f"{self.function} ended with {failed}"
        return returned.value

    def _loaded(self, kinds: tuple[str, ...]) -> Any:
        """Numba's calling convention: where to return to, where to put an error, then the arguments, each array as
        its owner, its parent, count and item size, address, shape and stride."""
        pointer, number = ctypes.c_void_p, ctypes.c_int64
        array = (pointer, pointer, number, number, pointer, number, number)
        plain: dict[str, tuple[Any, ...]] = {"i8": (number,), "f8": (ctypes.c_double,)}
        flat = [part for kind in kinds for part in plain.get(kind, array)]
        prototype = ctypes.CFUNCTYPE(ctypes.c_int32, pointer, pointer, *flat)
        name = f"{self.function}-{hashlib.sha256(_cpu().encode()).hexdigest()[:8]}"  # machines may share a disk
        made_with = (" ".join(kinds), _numba(), llvmlite.__version__, _cpu())
        symbol, _, code = kept_on_disk(name, made_with, lambda: self._compiled(kinds)).partition(b"\n")
        engine = _engine()
        engine.add_object_file(llvm.ObjectFileRef.from_data(code))
        engine.finalize_object()
        return prototype(engine.get_function_address(symbol.decode()))

    def _compiled(self, kinds: tuple[str, ...]) -> bytes:
        """The symbol, a line by itself, and the object file."""
        log.info("compiling %s", self.function)
        build = importlib.import_module("dataproc.kernels.build")
        function = getattr(importlib.import_module(self.module), self.function)
        symbol, code = build.compiled(function, kinds)
        return bytes(f"{symbol}\n".encode() + code)


def kept_on_disk(name: str, made_with: tuple[str, ...], make: Callable[[], bytes]) -> bytes:
    """What `make` returns, from disk if it is there and was made with the same and by the same sources.

    On disk: SHA-256 of what it was made with, SHA-256 of the content, the content.
    """
    key = _digest([_sources(_SOURCES), *map(str.encode, made_with)])
    for directory in _directories():
        try:
            whole = (directory / f"{name}.kept").read_bytes()
        except OSError:
            continue
        if whole[:32] == key and whole[32:64] == hashlib.sha256(whole[64:]).digest():
            return whole[64:]
    content = make()
    whole = key + hashlib.sha256(content).digest() + content
    if not any(_written(directory / f"{name}.kept", whole) for directory in _directories()):
        log.warning("no place to keep %s: every process makes it anew; set XDG_CACHE_HOME to one", name)
    return content


def _digest(parts: Iterable[bytes]) -> bytes:
    return hashlib.sha256(b"".join(len(part).to_bytes(8, "little") + part for part in parts)).digest()


@cache
def _sources(directory: Path) -> bytes:
    """The sources as they were when this process first asked; a process does not import them twice either."""
    return _digest(path.read_bytes() for path in sorted(directory.glob("*.py")))


def _directories() -> Iterator[Path]:
    """Where things may be kept: beside the sources, or in the user's cache."""
    yield _SOURCES / "__pycache__"
    yield Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "winnow"


def _written(path: Path, whole: bytes) -> bool:
    """Writes aside and renames, so that other processes see all of it or nothing; False if the place is no good."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside.write_bytes(whole)
        aside.replace(path)
    except OSError:
        with suppress(OSError):  # such as a full disk
            aside.unlink(missing_ok=True)
        return False
    return True


@cache
def _numba() -> str:
    """The file that has its version. (importlib.metadata takes longer than all kernels do.)"""
    spec = find_spec("numba")
    assert spec is not None, "numba is a dependency"
    assert spec.origin is not None, "numba is a package"
    return Path(spec.origin).with_name("_version.py").read_text()


@cache
def _cpu() -> str:
    return f"{llvm.get_process_triple()} {llvm.get_host_cpu_name()} {llvm.get_host_cpu_features().flatten()}"


@cache
def _engine() -> Any:
    """LLVM's linker for this process."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine()
    return llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
