"""LLVM code of operations on vectors of sixteen 32-bit lanes, by what the processor has.

For the functions of Numba code in vector.py, simd_f32.py and micro_kernel.py.
"""

from typing import Any

from llvmlite import ir
from numba.core import cgutils
from numba.core import config as numba_config
from numba.core.codegen import get_host_cpu_features

from bnnrun.gemm.bits import LANES

VECTOR_BYTES = 4 * LANES

_I8, _I16, _I32 = ir.IntType(8), ir.IntType(16), ir.IntType(32)
WORDS = ir.VectorType(_I32, LANES)
BYTE_VECTOR = ir.VectorType(_I8, 4 * LANES)

# The features that Numba compiles for. Its variables (NUMBA_CPU_NAME, NUMBA_ENABLE_AVX) may disable
# some that the processor has; LLVM cannot select an instruction of a disabled feature.
_listed = numba_config.CPU_FEATURES  # type: ignore[attr-defined]
_listed = get_host_cpu_features() if _listed is None else _listed
FEATURES = frozenset(name[1:] for name in _listed.split(",") if name.startswith("+"))
HAS_TERNARY = "avx512f" in FEATURES
HAS_POPCOUNT = "avx512vpopcntdq" in FEATURES
HAS_BYTE_PRODUCT = "avx512vnni" in FEATURES
HAS_BYTE_PAIRS = "avx2" in FEATURES  # products of bytes in three instructions instead of one
HAS_FAST_BYTES = HAS_BYTE_PRODUCT or HAS_BYTE_PAIRS


def constant(value: int) -> ir.Constant:
    """`value` in every lane."""
    return ir.Constant(WORDS, [value] * LANES)


def splat(builder: Any, scalar: Any) -> Any:
    """LLVM code of a vector that has `scalar`, of 32 bits, in every lane."""
    undefined = ir.Constant(ir.VectorType(scalar.type, LANES), ir.Undefined)
    one = builder.insert_element(undefined, scalar, ir.Constant(_I32, 0))
    return builder.shuffle_vector(one, undefined, ir.Constant(WORDS, [0] * LANES))


def address(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:
    """LLVM code of the address of array[index]."""
    data = context.make_array(array_type)(context, builder, array).data
    return builder.gep(data, [index])


def intrinsic_call(builder: Any, name: str, result: Any, args: list[Any]) -> Any:
    """LLVM code of a call of one of LLVM's own functions."""
    function_type = ir.FunctionType(result, [a.type for a in args])
    function = cgutils.get_or_insert_function(builder.module, function_type, name)
    return builder.call(function, args)


def popcount_of(builder: Any, a: Any) -> Any:
    """LLVM code of the bits set in each lane of `a`."""
    return intrinsic_call(builder, "llvm.ctpop.v16i32", WORDS, [a])


def masked_difference(builder: Any, a: Any, b: Any, mask: Any) -> Any:
    """LLVM code of (a ^ b) & mask."""
    if HAS_TERNARY:
        return ternary(builder, a, b, mask, 0x28)
    return builder.and_(builder.xor(a, b), mask)


def byte_products(builder: Any, total: Any, a: Any, w: Any) -> Any:
    """LLVM code of `add_byte_products`."""
    if HAS_BYTE_PRODUCT:
        return intrinsic_call(builder, "llvm.x86.avx512.vpdpbusd.512", WORDS, [total, a, w])
    if HAS_BYTE_PAIRS:
        return builder.add(total, _sums_of_pairs(builder, a, w))
    return _plain_byte_products(builder, total, a, w)


def _sums_of_pairs(builder: Any, a: Any, w: Any) -> Any:
    """The four products of each lane, by AVX2: in pairs to 16 bits, those in pairs to 32."""
    words, shorts = (ir.VectorType(kind, 256 // kind.width) for kind in (_I32, _I16))
    ones, halves = ir.Constant(shorts, [1] * 16), []
    for first in (0, 32):
        lanes = ir.Constant(ir.VectorType(_I32, 32), [*range(first, first + 32)])
        whole = [builder.bitcast(x, BYTE_VECTOR) for x in (a, w)]
        half = [builder.shuffle_vector(x, x, lanes) for x in whole]
        pairs = intrinsic_call(builder, "llvm.x86.avx2.pmadd.ub.sw", shorts, half)
        halves.append(intrinsic_call(builder, "llvm.x86.avx2.pmadd.wd", words, [pairs, ones]))
    return builder.shuffle_vector(*halves, ir.Constant(WORDS, [*range(LANES)]))


def ternary(builder: Any, a: Any, b: Any, c: Any, table: int) -> Any:
    """LLVM code of the bitwise function of three operands that `table` gives, by AVX-512."""
    return intrinsic_call(
        builder, "llvm.x86.avx512.pternlog.d.512", WORDS, [a, b, c, ir.Constant(_I32, table)]
    )


def _plain_byte_products(builder: Any, total: Any, a: Any, w: Any) -> Any:
    """As `byte_products`, by shifts and 32-bit products: one byte of each lane after the other."""
    down = constant(24)
    for position in range(4):
        up = constant(24 - 8 * position)
        x = builder.lshr(builder.shl(a, up), down)
        y = builder.ashr(builder.shl(w, up), down)
        total = builder.add(total, builder.mul(x, y))
    return total
