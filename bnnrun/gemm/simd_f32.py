"""Operations on the vectors of vector.py that take their lanes as float32."""

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from bnnrun.gemm.bits import LANES
from bnnrun.gemm.instructions import splat
from bnnrun.gemm.vector import vector

_I16, _I32 = ir.IntType(16), ir.IntType(32)
_WORDS = ir.VectorType(_I32, LANES)
_FLOATS = ir.VectorType(ir.FloatType(), LANES)


def _floats(builder: Any, args: Any) -> list[Any]:
    return [builder.bitcast(value, _FLOATS) for value in args]


@intrinsic
def add_floats(typingctx, a, b):
    """a + b."""

    def codegen(context, builder, signature, args):
        return builder.bitcast(builder.fadd(*_floats(builder, args)), _WORDS)

    return vector(vector, vector), codegen


@intrinsic
def subtract_floats(typingctx, a, b):
    """a - b."""

    def codegen(context, builder, signature, args):
        return builder.bitcast(builder.fsub(*_floats(builder, args)), _WORDS)

    return vector(vector, vector), codegen


@intrinsic
def scale(typingctx, a, x):
    """a · x, x a float32 scalar."""

    def codegen(context, builder, signature, args):
        (a,) = _floats(builder, args[:1])
        return builder.bitcast(builder.fmul(a, splat(builder, args[1])), _WORDS)

    return vector(vector, types.float32), codegen


@intrinsic
def multiply_add(typingctx, a, x, b):
    """a · x + b, rounded once; x a float32 scalar."""

    def codegen(context, builder, signature, args):
        a, b = _floats(builder, (args[0], args[2]))
        function_type = ir.FunctionType(_FLOATS, [_FLOATS] * 3)
        fma = cgutils.get_or_insert_function(builder.module, function_type, "llvm.fma.v16f32")
        return builder.bitcast(builder.call(fma, [a, splat(builder, args[1]), b]), _WORDS)

    return vector(vector, types.float32, vector), codegen


@intrinsic
def to_floats(typingctx, a):
    """The int32 lanes converted to float32."""

    def codegen(context, builder, signature, args):
        return builder.bitcast(builder.sitofp(args[0], _FLOATS), _WORDS)

    return vector(vector), codegen


@intrinsic
def not_negative(typingctx, a):
    """Bit i: lane i of a >= 0, so that Sign(-0) = +1 too; a uint16."""

    def codegen(context, builder, signature, args):
        (a,) = _floats(builder, args)
        zero = ir.Constant(_FLOATS, [0.0] * LANES)
        return builder.bitcast(builder.fcmp_ordered(">=", a, zero), _I16)

    return types.uint16(vector), codegen


@intrinsic
def nearer_zero(typingctx, a, x):
    """a - x where a >= 0, else a + x; x a float32 scalar."""

    def codegen(context, builder, signature, args):
        (a,) = _floats(builder, args[:1])
        function_type = ir.FunctionType(_FLOATS, [_FLOATS] * 2)
        copysign = cgutils.get_or_insert_function(
            builder.module, function_type, "llvm.copysign.v16f32"
        )
        signed = builder.call(copysign, [splat(builder, args[1]), a])
        return builder.bitcast(builder.fsub(a, signed), _WORDS)

    return vector(vector, types.float32), codegen


@intrinsic
def not_zero(typingctx, a):
    """Bit i: lane i of a != 0; a uint16."""

    def codegen(context, builder, signature, args):
        (a,) = _floats(builder, args)
        zero = ir.Constant(_FLOATS, [0.0] * LANES)
        return builder.bitcast(builder.fcmp_unordered("!=", a, zero), _I16)

    return types.uint16(vector), codegen


@intrinsic
def signs(typingctx, bits):
    """+1 in lane i where bit i is set, else -1, of a uint16."""

    def codegen(context, builder, signature, args):
        lanes = builder.bitcast(args[0], ir.VectorType(ir.IntType(1), LANES))
        one, other = (ir.Constant(_FLOATS, [x] * LANES) for x in (1.0, -1.0))
        return builder.bitcast(builder.select(lanes, one, other), _WORDS)

    return vector(types.uint16), codegen


@intrinsic
def permute(typingctx, table, index):
    """Permute: lane i is table[index[i] mod 16]."""

    def codegen(context, builder, signature, args):
        (table,) = _floats(builder, args[:1])
        function_type = ir.FunctionType(_FLOATS, [_FLOATS, _WORDS])
        permute = cgutils.get_or_insert_function(
            builder.module, function_type, "llvm.x86.avx512.permvar.sf.512"
        )
        return builder.bitcast(builder.call(permute, [table, args[1]]), _WORDS)

    return vector(vector, vector), codegen
