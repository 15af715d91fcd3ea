"""The innermost loops of the products: some rows of A times TILE_PANELS panels of W.

They are emitted as LLVM code: as functions of Numba, with as many variables as there are
accumulators, most of the time of a kernel's compilation would be theirs (docs/CONTRIBUTING.md).
"""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from bnnrun.gemm.bits import LANES, TILE_PANELS
from bnnrun.gemm.instructions import (
    VECTOR_BYTES,
    byte_products,
    intrinsic_call,
    masked_difference,
    popcount_of,
    splat,
)
from bnnrun.gemm.vector import vector

_WORDS = ir.VectorType(ir.IntType(32), LANES)
_FLOATS = ir.VectorType(ir.FloatType(), LANES)
_COUNT = ir.IntType(64)


def rows_by_panels(rows: int) -> Any:
    """A function of Numba code that multiplies `rows` rows by TILE_PANELS panels.

    Sums stay in registers: a word of W is loaded once for all rows, a word of A once for all
    panels. Its arguments are

        a:         words of A; or words and a mask, for sums over the 1 bits of the mask
        i, stride: the first row's first word; words from row to row
        w:         W, as uint32 words of bits, or as int8
        j, size:   elements of W to the first panel, and from panel to panel
        kw:        words of a plane
        pairs:     the products of bit planes (tiles.plane_pairs)

    It returns the accumulators of tiles.py: those of the first row with each panel, then of the
    next.
    """

    @intrinsic
    def multiply(typingctx, a, i, stride, w, j, size, kw, pairs):  # noqa: PLR0917
        arrays = tuple(a) if isinstance(a, types.BaseTuple) else (a,)
        element = w.dtype.bitwidth // 8
        add = _add_bytes if w.dtype == types.int8 else _add_popcounts
        word = types.intp
        result = types.UniTuple(vector, rows * TILE_PANELS)

        def codegen(context, builder, signature, args):
            a, i, stride, w, j, size, kw, pairs = args
            parts = cgutils.unpack_tuple(builder, a) if arrays[1:] else [a]
            rows_of_a = [_data(context, builder, *x) for x in zip(arrays, parts, strict=True)]
            columns = _data(context, builder, signature.args[3], w)
            of_pairs = context.make_array(signature.args[7])(context, builder, pairs)
            number = builder.extract_value(of_pairs.shape, 0)
            sums = [cgutils.alloca_once(builder, _WORDS) for _ in range(rows * TILE_PANELS)]
            for each in sums:
                builder.store(ir.Constant(_WORDS, None), each)

            with cgutils.for_range(builder, number) as pair:
                plane, weight_plane, begins = _load_three(builder, of_pairs.data, pair.index)
                with builder.if_then(builder.icmp_signed("!=", begins, _constant(0))):
                    _double(builder, sums)
                weight_plane = builder.mul(weight_plane, _constant(4 // element))
                starts = _progression(builder, builder.add(i, plane), stride, rows)
                panels = _progression(builder, builder.add(j, weight_plane), size, TILE_PANELS)
                with cgutils.for_range(builder, kw) as at:
                    k = builder.mul(at.index, _constant(VECTOR_BYTES // element))
                    ws = [_load_vector(builder, columns, builder.add(p, k)) for p in panels]
                    for row, start in enumerate(starts):
                        here = builder.add(start, at.index)
                        xs = [splat(builder, _load(builder, x, here)) for x in rows_of_a]
                        for p, of_w in enumerate(ws):
                            total = sums[row * TILE_PANELS + p]
                            builder.store(add(builder, builder.load(total), xs, of_w), total)
            return context.make_tuple(builder, result, [builder.load(each) for each in sums])

        return result(a, word, word, w, word, word, word, pairs), codegen

    return multiply


def _add_popcounts(builder: Any, total: Any, xs: list[Any], w: Any) -> Any:
    """total + popc(a ^ w), or total + popc((a ^ w) & mask)."""
    differ = masked_difference(builder, xs[0], w, xs[1]) if xs[1:] else builder.xor(xs[0], w)
    return builder.add(total, popcount_of(builder, differ))


def _add_bytes(builder: Any, total: Any, xs: list[Any], w: Any) -> Any:
    return byte_products(builder, total, xs[0], w)


def _constant(value: int) -> ir.Constant:
    return ir.Constant(_COUNT, value)


def _data(context: Any, builder: Any, array_type: Any, array: Any) -> Any:
    return context.make_array(array_type)(context, builder, array).data


def _load(builder: Any, data: Any, index: Any) -> Any:
    return builder.load(builder.gep(data, [index]))


def _load_three(builder: Any, data: Any, row: Any) -> list[Any]:
    """A row of a matrix of three columns."""
    at = builder.mul(row, _constant(3))
    return [_load(builder, data, builder.add(at, _constant(n))) for n in range(3)]


def _load_vector(builder: Any, data: Any, index: Any, kind: Any = _WORDS) -> Any:
    address = builder.gep(data, [index])
    value = builder.load(builder.bitcast(address, kind.as_pointer()))
    value.align = 4
    return value


def _store_vector(builder: Any, data: Any, index: Any, value: Any) -> None:
    address = builder.bitcast(builder.gep(data, [index]), value.type.as_pointer())
    builder.store(value, address).align = 4


def _double(builder: Any, sums: list[Any]) -> None:
    for each in sums:
        n = builder.load(each)
        builder.store(builder.add(n, n), each)


def _progression(builder: Any, first: Any, step: Any, count: int) -> list[Any]:
    """first, first + step, ..."""
    terms = [first]
    for _ in range(count - 1):
        terms.append(builder.add(terms[-1], step))
    return terms


def tile_of_floats(rows: int, vectors: int) -> Any:
    """A function of Numba code that multiplies `rows` rows of A by `vectors` vectors of B, float32.

    The tile of the product stays in registers while it is summed. The function's arguments are

        a:            A
        i, row, step: its first element; elements from row to row, and from column to column
        b, j, width:  B, its first element, elements from row to row
        depth:        columns of A, rows of B
        out, at, stride: the product, its first element, elements from row to row
        adds:         whether the tile is added to what is there, or stored
    """

    @intrinsic
    def multiply(typingctx, a, i, row, step, b, j, width, depth, out, at, stride, adds):  # noqa: PLR0917
        word = types.intp

        def codegen(context, builder, signature, args):
            a, i, row, step, b, j, width, depth, out, at, stride, adds = args
            of_a, of_b, of_out = (
                _data(context, builder, signature.args[n], x) for n, x in ((0, a), (4, b), (8, out))
            )
            sums = [cgutils.alloca_once(builder, _FLOATS) for _ in range(rows * vectors)]
            for each in sums:
                builder.store(ir.Constant(_FLOATS, None), each)
            starts = _progression(builder, i, row, rows)

            with cgutils.for_range(builder, depth) as k:
                column = builder.mul(k.index, step)
                first = builder.add(j, builder.mul(k.index, width))
                lanes = _progression(builder, first, _constant(LANES), vectors)
                of_row = [_load_vector(builder, of_b, n, _FLOATS) for n in lanes]
                for r, start in enumerate(starts):
                    x = splat(builder, _load(builder, of_a, builder.add(start, column)))
                    for v, y in enumerate(of_row):
                        total = sums[r * vectors + v]
                        terms = [x, y, builder.load(total)]
                        sum_ = intrinsic_call(builder, "llvm.fma.v16f32", _FLOATS, terms)
                        builder.store(sum_, total)

            for r, start in enumerate(_progression(builder, at, stride, rows)):
                for v, n in enumerate(_progression(builder, start, _constant(LANES), vectors)):
                    total = sums[r * vectors + v]
                    with builder.if_then(adds):
                        there = _load_vector(builder, of_out, n, _FLOATS)
                        builder.store(builder.fadd(builder.load(total), there), total)
                    _store_vector(builder, of_out, n, builder.load(total))
            return context.get_dummy_value()

        arguments = a, word, word, word, b, word, word, word, out, word, word, types.boolean
        return types.void(*arguments), codegen

    return multiply


multiply_four_rows: Callable[..., Any] = rows_by_panels(4)
multiply_row: Callable[..., Any] = rows_by_panels(1)
