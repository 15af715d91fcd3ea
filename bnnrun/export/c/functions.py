"""The functions of a network in C: which templates it needs, and the statements that call them."""

from collections.abc import Iterator

from bnnrun.architecture import Layer
from bnnrun.export.c.tables import Tables

# Slots of the first layer's templates, by whether a number is a bit.
FIRST_SLOTS = {
    True: {
        "levels": "",
        "clear": "out[",
        "end": "] = 0;",
        "pooling": "a bit of `out` is the OR of four:\n"
        " * a window's largest sum reaches the threshold where any of them does. */",
    },
    False: {
        "levels": " * FIRST_LEVELS",
        "clear": "clear(out, FIRST_OUTPUT_BITS, FIRST_PLANE, ",
        "end": ");",
        "pooling": "a number of `out` is the largest\n * of four. */",
    },
}


def is_one_bit(layers: list[Tables]) -> bool:
    """Whether a number is a bit everywhere, which takes simpler and faster code."""
    bits = [(layer.shape.weight_bits, layer.shape.output_bits) for layer in layers]
    return all(each == (1, 1) for each in bits)


def templates(layers: list[Tables]) -> list[str]:
    """The templates of the functions that a network needs, in the order of the source."""
    first, *hidden, _ = layers
    functions = sorted({layer.function for layer in hidden}, reverse=True)  # dense, then conv
    if is_one_bit(layers):
        rows = ["rows", *functions] if hidden else []
        return ["first_bits", first.function, *rows, "output"]
    rows = ["codes_layer", *(f"codes_{function}" for function in functions)] if hidden else []
    return ["codes", "codes_first", first.function, *rows, "codes_output"]


def statements(layers: list[Tables]) -> Iterator[str]:
    """The statements that run all layers but the last."""
    one_bit = is_one_bit(layers)
    has_patch = any(layer.function == "conv" for layer in layers)
    yield "word *const even = scratch, *const odd = even + EVEN_WORDS;"
    if has_patch:
        yield "word *const patch = odd + ODD_WORDS;"
    if not one_bit:
        yield from map(_layer_sizes, layers[1:-1])
    for i, layer in enumerate(layers[:-1]):
        source, target = ("odd", "even") if i % 2 == 0 else ("even", "odd")
        shape, tables = layer.shape, f"{layer.name}_weights, {layer.name}_thresholds"
        height, width = shape.size
        sizes = f"{height}, {width}, {shape.inputs}, {shape.outputs}, {2 if shape.pool else 1}"
        if layer.function == "first_dense":
            call = f"first_dense(image, even, odd, {tables}, {shape.inputs}, {shape.outputs});"
        elif layer.function == "first_conv":
            call = f"first_conv(image, even, odd, {tables}, {sizes});"
        elif not one_bit:
            patch = ", patch" if layer.function == "conv" else ""
            call = f"{layer.function}(&{layer.name}, {source}, {target}{patch}, {tables});"
        elif layer.function == "dense":
            call = (f"dense({source}, {target}, {tables}, {shape.inputs}, {row_words(layer)}, "
                    f"{shape.outputs});")  # fmt: skip
        else:
            call = f"conv({source}, {target}, patch, {tables}, {sizes});"
        yield call
    yield f"return {'even' if len(layers) % 2 == 0 else 'odd'};"


def _layer_sizes(layer: Tables) -> str:
    """The declaration of a hidden layer's `layer_sizes`."""
    shape, previous = layer.shape, layer.previous
    assert previous is not None
    sizes = [*shape.size, shape.inputs, shape.outputs, 2 if shape.pool else 1, row_words(layer)]
    bits = [shape.input_bits, shape.weight_bits, shape.output_bits]
    rest = [*bits, plane_words(previous), plane_words(shape), shape.unit]
    first, second = (", ".join(map(str, part)) for part in (sizes, rest))
    return f"const layer_sizes {layer.name} = {{\n        {first},\n        {second}\n    }};"


def plane_words(shape: Layer) -> str:
    """Words of a bit plane of a layer's outputs, in C."""
    height, width = shape.pooled
    return f"{height * width}u * WORDS({shape.outputs}u)"


def row_words(layer: Tables) -> str:
    """Words of a row of weights, in C."""
    _, groups, bits = layer.weights.shape
    return f"WORDS({bits}u)" if groups == 1 else f"{groups}u * WORDS({bits}u)"
