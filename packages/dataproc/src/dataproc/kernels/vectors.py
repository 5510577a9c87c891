"""The few instructions that numba's Python has no words for, written as LLVM code for any CPU.

A text is an array of bytes; the 64 bytes from a position on are seen as one vector, and a question about each of them
is answered by a mask: bit i is for byte i. LLVM cuts the vectors to the size that the CPU has. Nothing checks bounds:
whoever asks sees to it that 64 (or 8, or 4) bytes are there.
"""

from collections.abc import Callable
from inspect import signature
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from dataproc.kernels.scratch import BLOCK, LANES, WIDE_LANES

_I1, _I8, _I32, _I64, _I128 = (ir.IntType(bits) for bits in (1, 8, 32, 64, 128))
_BYTES = ir.VectorType(_I8, BLOCK)
_BITS = ir.VectorType(_I1, BLOCK)
_MINIMA = ir.VectorType(_I32, LANES)
_WIDE = ir.VectorType(_I64, WIDE_LANES)

# Vectors are packed by an instruction where the CPU has it, else run by run.
PACKS = "+avx512vbmi2" in llvm.get_host_cpu_features().flatten().split(",")

_SPACES = ((9, 13), (28, 32))  # str.isspace in ASCII
_STRING_ENDS = ((0, 31), (34, 34), (92, 92))
_NOT_PLAIN = ((0, 8), (11, 31), (127, 255))
_MARKUP = ((38, 38), (60, 60))
_PUNCTUATION = ((33, 47), (58, 64), (91, 96), (123, 126))  # string.punctuation


def _instruction(returns: Any, *takes: Any) -> Callable[[Callable[..., Any]], Any]:
    """A function for kernels whose body `write(builder, …)` makes LLVM code; arrays (None in `takes`) come as the
    address of their data."""

    def make(write: Callable[..., Any]) -> Any:
        def typed(context: Any, *given: Any) -> Any:
            kinds = [kind if wanted is None else wanted for wanted, kind in zip(takes, given, strict=True)]

            def generate(target: Any, builder: Any, types_: Any, values: Any) -> Any:
                addresses = [
                    target.make_array(kind)(target, builder, value).data if wanted is None else value
                    for wanted, kind, value in zip(takes, types_.args, values, strict=True)
                ]
                made = write(builder, *addresses)
                if isinstance(returns, types.UniTuple):
                    return target.make_tuple(builder, returns, made)
                return target.get_dummy_value() if returns is types.void else made

            return returns(*kinds), generate

        typed.__name__ = write.__name__
        typed.__signature__ = signature(write)  # type: ignore[attr-defined]  # numba counts the arguments by it
        return intrinsic(typed)

    return make


# ---- words and bits


@_instruction(types.uint64, None, types.int64)
def load8(builder: Any, text: Any, at: Any) -> Any:
    """Eight bytes as one little-endian number."""
    return _load(builder, text, at, _I64)


@_instruction(types.int64, None, types.int64)
def load4(builder: Any, text: Any, at: Any) -> Any:
    return builder.zext(_load(builder, text, at, _I32), _I64)


@_instruction(types.int64, types.uint64)
def lowest(builder: Any, mask: Any) -> Any:
    """The number of the lowest bit that is set; 64 if none is."""
    return builder.cttz(mask, ir.Constant(_I1, 0))


@_instruction(types.int64, types.uint64)
def count(builder: Any, mask: Any) -> Any:
    """How many bits are set."""
    return builder.ctpop(mask)


@_instruction(types.uint64, types.uint64, types.uint64)
def fold(builder: Any, a: Any, b: Any) -> Any:
    """The low and the high half of the 128-bit product, one xor the other."""
    return builder.xor(*_halves(builder, a, b))


@_instruction(types.uint64, types.uint64, types.uint64, types.uint64)
def fold_twice(builder: Any, a: Any, b: Any, c: Any) -> Any:
    """The fold of the low half xor c and the high half of the product."""
    low, high = _halves(builder, a, b)
    return builder.xor(*_halves(builder, builder.xor(low, c), high))


def _halves(builder: Any, a: Any, b: Any) -> tuple[Any, Any]:
    product = builder.mul(builder.zext(a, _I128), builder.zext(b, _I128))
    return builder.trunc(product, _I64), builder.trunc(builder.lshr(product, ir.Constant(_I128, 64)), _I64)


# ---- 64 bytes of text


@_instruction(types.UniTuple(types.uint64, 3), None, types.int64)
def classify(builder: Any, text: Any, at: Any) -> Any:
    """Masks of ASCII white space, of ASCII punctuation, and of what is not ASCII."""
    block = _load(builder, text, at, _BYTES)
    foreign = builder.icmp_signed("<", block, _every(0))
    masks = (_within(builder, block, _SPACES), _within(builder, block, _PUNCTUATION), foreign)
    return [builder.bitcast(mask, _I64) for mask in masks]


@_instruction(types.uint64, None, types.int64)
def spaces(builder: Any, text: Any, at: Any) -> Any:
    """Mask of the spaces proper, 0x20."""
    return builder.bitcast(builder.icmp_unsigned("==", _load(builder, text, at, _BYTES), _every(0x20)), _I64)


@_instruction(types.uint64, None, types.int64)
def foreign(builder: Any, text: Any, at: Any) -> Any:
    """Mask of what is not ASCII."""
    return builder.bitcast(builder.icmp_signed("<", _load(builder, text, at, _BYTES), _every(0)), _I64)


@_instruction(types.uint64, None, types.int64)
def string_ends(builder: Any, text: Any, at: Any) -> Any:
    """Mask of what cannot stand for itself in a string of JSON: quotes, backslashes and control characters."""
    return builder.bitcast(_within(builder, _load(builder, text, at, _BYTES), _STRING_ENDS), _I64)


@_instruction(types.uint64, None, types.int64)
def not_plain(builder: Any, text: Any, at: Any) -> Any:
    """Mask of what is neither printable ASCII, nor a tab, nor a newline."""
    return builder.bitcast(_within(builder, _load(builder, text, at, _BYTES), _NOT_PLAIN), _I64)


@_instruction(types.uint64, None, types.int64)
def markup(builder: Any, text: Any, at: Any) -> Any:
    """Mask of `&` and `<`."""
    return builder.bitcast(_within(builder, _load(builder, text, at, _BYTES), _MARKUP), _I64)


@_instruction(types.uint64, None, types.int64)
def leads(builder: Any, text: Any, at: Any) -> Any:
    """Mask of the bytes that begin a character of several."""
    return builder.bitcast(builder.icmp_unsigned(">=", _load(builder, text, at, _BYTES), _every(0xC0)), _I64)


@_instruction(types.uint64, None, types.int64)
def starts(builder: Any, text: Any, at: Any) -> Any:
    """Mask of the bytes that begin a character: all but 10xxxxxx, which are below -64 as signed numbers."""
    return builder.bitcast(builder.icmp_signed(">=", _load(builder, text, at, _BYTES), _every(0xC0)), _I64)


@_instruction(types.void, None, types.int64, None, types.int64)
def copy(builder: Any, out: Any, to: Any, text: Any, at: Any) -> None:
    """64 bytes as they are."""
    _store(builder, out, to, _load(builder, text, at, _BYTES))


@_instruction(types.void, None, types.int64, None, types.int64)
def copy_cleaned(builder: Any, out: Any, to: Any, text: Any, at: Any) -> None:
    """64 bytes with ASCII letters in lower case and ASCII white space as 0x20."""
    _store(builder, out, to, _cleaned(builder, _load(builder, text, at, _BYTES)))


@_instruction(types.void, None, types.int64, None, types.int64, types.uint64)
def pack_cleaned(builder: Any, out: Any, to: Any, text: Any, at: Any, kept: Any) -> None:
    """As `copy_cleaned`, but only the bytes in the mask, side by side; what follows them in `out` is not defined."""
    name = f"llvm.experimental.vector.compress.v{BLOCK}i8"
    packing = builder.module.globals.get(name) or ir.Function(
        builder.module, ir.FunctionType(_BYTES, [_BYTES, _BITS, _BYTES]), name
    )
    block = _cleaned(builder, _load(builder, text, at, _BYTES))
    _store(builder, out, to, builder.call(packing, [block, builder.bitcast(kept, _BITS), _every(0)]))


# ---- minima of permutations


@_instruction(types.void, None, types.int64, types.uint32)
def fill(builder: Any, numbers: Any, at: Any, value: Any) -> None:
    """Sets 32 numbers."""
    _store(builder, numbers, at, _broadcast(builder, value, _MINIMA), align=4)


@_instruction(types.void, None, types.int64, None, types.int64)
def mix32(builder: Any, hashes: Any, at: Any, mixed: Any, to: Any) -> None:
    """MurmurHash3's finaliser of the low halves of 32 hashes."""
    h = builder.trunc(_load(builder, hashes, at, ir.VectorType(_I64, LANES), align=8), _MINIMA)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, 1)):
        h = builder.xor(h, builder.lshr(h, ir.Constant(_MINIMA, [shift] * LANES)))
        h = builder.mul(h, ir.Constant(_MINIMA, [factor] * LANES))
    _store(builder, mixed, to, h, align=4)


@_instruction(types.void, None, types.int64, None, None, types.int64, None, types.int64)
def lower_minima(builder: Any, hashes: Any, size: Any, factors: Any, terms: Any, k: Any, minima: Any, to: Any) -> None:
    """Lowers 32 minima to factor · h + term mod 2³² for each hash h. All but the hashes stays in registers."""
    factor, term, least = (_load(builder, *at, _MINIMA, align=4) for at in ((factors, k), (terms, k), (minima, to)))
    kept = cgutils.alloca_once_value(builder, least)
    with cgutils.for_range(builder, size) as loop:
        h = builder.load(builder.gep(hashes, [loop.index]))
        value = builder.add(builder.mul(factor, _broadcast(builder, h, _MINIMA)), term)
        builder.store(_least(builder, value, builder.load(kept)), kept)
    _store(builder, minima, to, builder.load(kept), align=4)


@_instruction(types.void, types.uint64, None, None, types.int64, None, types.int64)
def lower_wide_minima(builder: Any, h: Any, factors: Any, terms: Any, k: Any, minima: Any, to: Any) -> None:
    """Lowers 8 minima to the low half of (factor · h + term mod 2⁶⁴) mod (2⁶¹ - 1)."""
    factor, term = (_load(builder, array, k, _WIDE, align=8) for array in (factors, terms))
    value = builder.add(builder.mul(factor, _broadcast(builder, h, _WIDE)), term)
    prime = ir.Constant(_WIDE, [2**61 - 1] * WIDE_LANES)
    value = builder.add(builder.and_(value, prime), builder.lshr(value, ir.Constant(_WIDE, [61] * WIDE_LANES)))
    over = builder.icmp_unsigned(">=", value, prime)
    value = builder.select(over, builder.sub(value, prime), value)
    low = builder.trunc(value, ir.VectorType(_I32, WIDE_LANES))
    _store(builder, minima, to, _least(builder, low, _load(builder, minima, to, low.type, align=4)), align=4)


def _least(builder: Any, a: Any, b: Any) -> Any:
    return builder.select(builder.icmp_unsigned("<", a, b), a, b)


def _broadcast(builder: Any, one: Any, kind: Any) -> Any:
    undefined = ir.Constant(kind, ir.Undefined)
    first = builder.insert_element(undefined, one, ir.Constant(_I32, 0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(_I32, kind.count), [0] * kind.count))


# ---- sets of hashes


@_instruction(types.int64, None, types.int64, None, types.int64)
def matches(builder: Any, a: Any, i: Any, b: Any, j: Any) -> Any:
    """How many of 8 numbers from a[i] on are among the 8 from b[j] on, if no number is there twice."""
    eight = _load(builder, a, i, _WIDE, align=8)
    found = ir.Constant(ir.VectorType(_I1, WIDE_LANES), [0] * WIDE_LANES)
    for k in range(WIDE_LANES):
        one = builder.load(builder.gep(b, [builder.add(j, ir.Constant(_I64, k))]))
        found = builder.or_(found, builder.icmp_unsigned("==", eight, _broadcast(builder, one, _WIDE)))
    bits = builder.bitcast(found, ir.IntType(WIDE_LANES))
    return builder.zext(builder.ctpop(bits), _I64)


# ---- what the instructions are made of


def _at(builder: Any, address: Any, index: Any, kind: Any) -> Any:
    return builder.bitcast(builder.gep(address, [index]), kind.as_pointer())


def _load(builder: Any, address: Any, index: Any, kind: Any, align: int = 1) -> Any:
    loaded = builder.load(_at(builder, address, index, kind))
    loaded.align = align
    return loaded


def _store(builder: Any, address: Any, index: Any, value: Any, align: int = 1) -> None:
    builder.store(value, _at(builder, address, index, value.type)).align = align


def _every(value: int) -> Any:
    return ir.Constant(_BYTES, [value] * BLOCK)


def _within(builder: Any, block: Any, ranges: tuple[tuple[int, int], ...]) -> Any:
    """Which bytes lie in one of the ranges, ends included."""
    mask = ir.Constant(_BITS, [0] * BLOCK)
    for low, high in ranges:
        inside = builder.icmp_unsigned("<", builder.sub(block, _every(low)), _every(high - low + 1))
        mask = builder.or_(mask, inside)
    return mask


def _cleaned(builder: Any, block: Any) -> Any:
    upper = _within(builder, block, ((ord("A"), ord("Z")),))
    block = builder.select(upper, builder.or_(block, _every(0x20)), block)
    return builder.select(_within(builder, block, _SPACES), _every(0x20), block)
