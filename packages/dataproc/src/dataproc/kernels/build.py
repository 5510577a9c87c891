"""Numba's part: a kernel's source → its machine code."""

from collections.abc import Callable
from typing import Any, TypeVar

import llvmlite.binding as llvm
import numba
import numpy as np
from numba.core.compiler_lock import global_compiler_lock

F = TypeVar("F", bound=Callable[..., Any])

# No reference counts: kernels own no memory, and without the option every assignment of an array is an atomic
# increment (a tenfold slow-down of cleaning). With it, an allocation in a kernel is an error when it is compiled.
_OPTIONS: dict[str, Any] = {"_nrt": False, "error_model": "numpy"}

# A function that kernels call.
part: Callable[[F], F] = numba.njit(**_OPTIONS)


@part
def signed(number: Any) -> int:
    """A number of an array for arithmetic with others: in numba, unsigned and signed make a float."""
    return np.int64(number)  # type: ignore[return-value]


def compiled(function: Callable[..., int], kinds: tuple[str, ...]) -> tuple[str, bytes]:
    """The kernel's symbol and the object file that holds it, for this CPU. kinds: `u1[]`, `i8[]`, …, `i8` or `f8`."""
    signature = ",".join(f"{kind[:-2]}[::1]" if kind.endswith("[]") else kind for kind in kinds)
    vectorize = numba.config.LOOP_VECTORIZE
    with global_compiler_lock:
        # What pays as vectors is written as vectors. Left to itself, LLVM gathers overlapping words: 3 × slower.
        numba.config.LOOP_VECTORIZE = 0
        try:
            compile_ = numba.njit(f"i8({signature})", no_cpython_wrapper=True, no_cfunc_wrapper=True, **_OPTIONS)
            dispatcher = compile_(function)
        finally:
            numba.config.LOOP_VECTORIZE = vectorize
    (typed,) = dispatcher.signatures
    symbol: str = dispatcher.overloads[typed].fndesc.llvm_func_name
    return symbol, _object_file(dispatcher.inspect_llvm(typed))


def _object_file(module: str) -> bytes:
    """LLVM's text form → machine code, as numba's own code generator makes it."""
    target = llvm.Target.from_default_triple()
    machine = target.create_target_machine(
        cpu=llvm.get_host_cpu_name(),
        features=llvm.get_host_cpu_features().flatten(),
        opt=3,
        reloc="static" if target.name.startswith("x86") else "default",
        codemodel="jitdefault",
    )
    code: bytes = machine.emit_object(llvm.parse_assembly(module))
    return code
