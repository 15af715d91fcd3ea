"""Vectors of sixteen 32-bit lanes as values in Numba code.

LLVM lowers a vector to what the processor has: one register of AVX-512, two of AVX2, four of SSE
or NEON (instructions.py). A kernel is written once, in terms of these functions, and needs no C
compiler.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.datamodel import models
from numba.extending import intrinsic, register_model

from bnnrun.gemm.bits import LANES
from bnnrun.gemm.instructions import (
    BYTE_VECTOR,
    HAS_FAST_BYTES,
    HAS_TERNARY,
    VECTOR_BYTES,
    WORDS,
    address,
    byte_products,
    constant,
    intrinsic_call,
    masked_difference,
    popcount_of,
    splat,
    ternary,
)

_I8, _I16, _I32 = ir.IntType(8), ir.IntType(16), ir.IntType(32)


class _Vector(types.Type):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__(name="Vector16x32")


vector = _Vector()


@register_model(_Vector)
class _VectorModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, of: Any) -> None:
        super().__init__(manager, of, WORDS)


@intrinsic
def compile_small(typingctx):
    """The function that calls this is compiled for size: its loops stay loops, and are not inlined.

    For loops that take little of the time: LLVM would make of each some twenty variants.
    """

    def codegen(context, builder, signature, args):
        for attribute in ("optsize", "noinline"):
            builder.function.attributes.add(attribute)
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def zero(typingctx):
    """All lanes 0."""

    def codegen(context, builder, signature, args):
        return constant(0)

    return vector(), codegen


@intrinsic
def load(typingctx, array, index):
    """array[index : index + 16], 32-bit elements."""

    def codegen(context, builder, signature, args):
        at = address(context, builder, signature.args[0], *args)
        value = builder.load(builder.bitcast(at, WORDS.as_pointer()))
        value.align = 4
        return value

    return vector(array, types.intp), codegen


@intrinsic
def store(typingctx, array, index, value):
    """array[index : index + 16] = value."""

    def codegen(context, builder, signature, args):
        at = address(context, builder, signature.args[0], args[0], args[1])
        instruction = builder.store(args[2], builder.bitcast(at, WORDS.as_pointer()))
        instruction.align = 4
        return context.get_dummy_value()

    return types.void(array, types.intp, vector), codegen


@intrinsic
def copy_vectors(typingctx, target, at, source, index, count):  # noqa: PLR0917
    """Copy `count` elements from source[index] by vectors.

    They go to `at` elements, of the size of source's, past the begin of `target`. Up to
    VECTOR_BYTES - 1 bytes past the last are read, and overwritten.
    """

    def codegen(context, builder, signature, args):
        target, at, source, index, count = args
        of_target, _, of_source = signature.args[:3]
        element, step, begin = (
            ir.Constant(count.type, n) for n in (of_source.dtype.bitwidth // 8, VECTOR_BYTES, 0)
        )
        of = builder.bitcast(address(context, builder, of_source, source, index), _I8.as_pointer())
        to = builder.bitcast(address(context, builder, of_target, target, begin), _I8.as_pointer())
        to, size = builder.gep(to, [builder.mul(at, element)]), builder.mul(count, element)
        with cgutils.for_range_slice(builder, begin, size, step, count.type) as (byte, _):
            value = builder.load(builder.bitcast(builder.gep(of, [byte]), BYTE_VECTOR.as_pointer()))
            value.align = 1
            here = builder.bitcast(builder.gep(to, [byte]), BYTE_VECTOR.as_pointer())
            builder.store(value, here).align = 1
        return context.get_dummy_value()

    return types.void(target, types.intp, source, types.intp, types.intp), codegen


@intrinsic
def prefetch(typingctx, array, index):
    """Prefetch the cache line of array[index] for writing."""

    def codegen(context, builder, signature, args):
        at = address(context, builder, signature.args[0], *args)
        arguments = [
            ir.Constant(_I32, x) for x in (1, 3, 1)
        ]  # for writing; high locality; data cache
        pointer = builder.bitcast(at, _I8.as_pointer())
        function_type = ir.FunctionType(ir.VoidType(), [pointer.type, *[_I32] * 3])
        function = cgutils.get_or_insert_function(
            builder.module, function_type, "llvm.prefetch.p0i8"
        )
        builder.call(function, [pointer, *arguments])
        return context.get_dummy_value()

    return types.void(array, types.intp), codegen


@intrinsic
def fill(typingctx, value):
    """The int32 `value` in every lane."""

    def codegen(context, builder, signature, args):
        return splat(builder, args[0])

    return vector(types.int32), codegen


@intrinsic
def broadcast(typingctx, array, index):
    """array[index], a 32-bit element, in every lane."""

    def codegen(context, builder, signature, args):
        scalar = builder.load(address(context, builder, signature.args[0], *args))
        return splat(builder, scalar)

    return vector(array, types.intp), codegen


@intrinsic
def xor3(typingctx, a, b, c):
    """a ^ b ^ c."""

    def codegen(context, builder, signature, args):
        a, b, c = args
        if HAS_TERNARY:
            return ternary(builder, a, b, c, 0x96)
        return builder.xor(builder.xor(a, b), c)

    return vector(vector, vector, vector), codegen


@intrinsic
def carry(typingctx, t, s, ones):
    """Carry of the full adder ones + x + y, of t = ones ^ x and s = t ^ y: t ? ~s : ones."""

    def codegen(context, builder, signature, args):
        t, s, ones = args
        if HAS_TERNARY:
            return ternary(builder, t, s, ones, 0x3A)
        return builder.xor(builder.and_(t, builder.not_(builder.xor(s, ones))), ones)

    return vector(vector, vector, vector), codegen


@intrinsic
def carry_out(typingctx, s, a, b):
    """Carry of the full adder a + b + c, of s = a ^ b ^ c: (a & b) | (~s & (a | b)).

    It does not read c, so that s can overwrite the register of c without a copy.
    """

    def codegen(context, builder, signature, args):
        s, a, b = args
        if HAS_TERNARY:
            return ternary(builder, s, a, b, 0x8E)
        either = builder.and_(builder.not_(s), builder.or_(a, b))
        return builder.or_(builder.and_(a, b), either)

    return vector(vector, vector, vector), codegen


@intrinsic
def masked_xor(typingctx, a, b, mask):
    """(a ^ b) & mask."""

    def codegen(context, builder, signature, args):
        return masked_difference(builder, *args)

    return vector(vector, vector, vector), codegen


@intrinsic
def shift_by_four(typingctx, a):
    """a >> 4, lane by lane, unsigned."""

    def codegen(context, builder, signature, args):
        return builder.lshr(args[0], constant(4))

    return vector(vector), codegen


@intrinsic
def set_bit(typingctx, a, lanes, position):
    """`a` with bit `position` of each of `lanes` set; `lanes` a uint16, a lane a bit."""

    def codegen(context, builder, signature, args):
        a, lanes, position = args
        which = builder.bitcast(lanes, ir.VectorType(ir.IntType(1), LANES))
        one = builder.shl(ir.Constant(_I32, 1), builder.trunc(position, _I32))
        return builder.select(which, builder.or_(a, splat(builder, one)), a)

    return vector(vector, types.uint16, types.intp), codegen


@intrinsic
def xor(typingctx, a, b):
    """a ^ b."""

    def codegen(context, builder, signature, args):
        return builder.xor(*args)

    return vector(vector, vector), codegen


@intrinsic
def add(typingctx, a, b):
    """a + b, lane by lane."""

    def codegen(context, builder, signature, args):
        return builder.add(*args)

    return vector(vector, vector), codegen


@intrinsic
def add_bytes(typingctx, a, b):
    """a + b, byte by byte."""

    def codegen(context, builder, signature, args):
        a, b = (builder.bitcast(x, BYTE_VECTOR) for x in args)
        return builder.bitcast(builder.add(a, b), WORDS)

    return vector(vector, vector), codegen


@intrinsic
def popcount(typingctx, a):
    """Bits set in each 32-bit lane."""

    def codegen(context, builder, signature, args):
        return popcount_of(builder, args[0])

    return vector(vector), codegen


@intrinsic
def popcount_bytes(typingctx, a):
    """Bits set in each byte."""

    def codegen(context, builder, signature, args):
        value = builder.bitcast(args[0], BYTE_VECTOR)
        return builder.bitcast(
            intrinsic_call(builder, "llvm.ctpop.v64i8", BYTE_VECTOR, [value]), WORDS
        )

    return vector(vector), codegen


@intrinsic
def subtract(typingctx, a, b):
    """a - b, lane by lane."""

    def codegen(context, builder, signature, args):
        return builder.sub(*args)

    return vector(vector, vector), codegen


@intrinsic
def at_most(typingctx, a, b):
    """Bit i: lane i of a <= lane i of b, signed; a uint16."""

    def codegen(context, builder, signature, args):
        return builder.bitcast(builder.icmp_signed("<=", *args), _I16)

    return types.uint16(vector, vector), codegen


@intrinsic(prefer_literal=True)
def add_weighted_bytes(typingctx, total, terms, weight):
    """total + weight · (sum of the four bytes of each lane of `terms`); `weight` a literal."""
    if not isinstance(weight, types.IntegerLiteral):
        return None
    factor = weight.literal_value

    def codegen(context, builder, signature, args):
        total, terms = args[:2]
        if HAS_FAST_BYTES:
            return byte_products(builder, total, terms, constant(factor * 0x01010101))
        low = constant(0x00FF00FF)
        pairs = builder.add(
            builder.and_(terms, low), builder.and_(builder.lshr(terms, constant(8)), low)
        )
        sums = builder.add(builder.and_(pairs, constant(0xFFFF)), builder.lshr(pairs, constant(16)))
        return builder.add(total, builder.mul(sums, constant(factor)))

    return vector(vector, vector, weight), codegen


@intrinsic
def add_byte_products(typingctx, total, a, w):
    """total + the sum in each lane of its four products a · w; bytes, a unsigned, w signed.

    The sum of two neighbouring products must be a signed number of 16 bits.
    """

    def codegen(context, builder, signature, args):
        return byte_products(builder, *args)

    return vector(vector, vector, vector), codegen
