"""The C source: templates of real C code, filled with the tables and sizes of a network.

In the templates every name that a user sees begins with `bnn_` or `BNN_`, which becomes the
network's name, and `/*{slot}*/` is replaced by generated text.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from bnnrun import __version__
from bnnrun.export.c.functions import (
    FIRST_SLOTS,
    is_one_bit,
    plane_words,
    row_words,
    statements,
    templates,
)
from bnnrun.export.c.memory import WORD_BITS, Scratch, threshold_bits
from bnnrun.export.c.scores import Scores
from bnnrun.export.c.tables import Tables
from bnnrun.runtime.model import PackedModel, borders

LINE = 100  # characters
_TEMPLATES = files("bnnrun.export.c") / "template"
_SLOT = re.compile(r"/\*\{(\w+)\}\*/")


@dataclass(frozen=True)
class Network:
    """What the source is made from.

    Attributes:
        name:   of the functions
        layers: tables of the model's layers
        scores: of its output layer
    """

    name: str
    model: PackedModel
    layers: list[Tables]
    scores: Scores

    @property
    def scratch(self) -> Scratch:
        return Scratch(self.layers)


def fill(template: str, name: str, **slots: str) -> str:
    """The text of a template for a network."""
    text = (_TEMPLATES / template).read_text(encoding="utf-8")
    text = re.sub(r"\bbnn(?=_|\b)", name, text)
    text = re.sub(r"\bBNN(?=_)", name.upper(), text)
    return _SLOT.sub(lambda match: slots[match[1]], text)


def header(network: Network, about: str) -> str:
    """NAME.h."""
    name, model, scratch = network.name, network.model, network.scratch
    prefix = name.upper()
    channels, height, width = model.spec.image_shape
    sizes = [
        f"#define {prefix}_CHANNELS {channels}",
        f"#define {prefix}_HEIGHT {height}",
        f"#define {prefix}_WIDTH {width}",
        f"#define {prefix}_MAX_PIXEL {model.spec.max_pixel}",
        f"#define {prefix}_IMAGE_BYTES {channels * height * width}",
        f"#define {prefix}_CLASSES {len(model.spec.classes)}",
        f"#define {prefix}_SCRATCH_ALIGN ({prefix}_WORD_BITS / 8)",
        *(
            f"#{'if' if bits == WORD_BITS[0] else 'elif'} {prefix}_WORD_BITS == {bits}\n"
            f"#define {prefix}_SCRATCH_BYTES {scratch.words(bits) * bits // 8}"
            for bits in WORD_BITS
        ),
        "#endif",
    ]
    filled = fill(
        "header.h",
        name,
        sizes="\n".join(sizes),
        score_type=f"int{network.scores.bits}_t",
        numbers="+1 and -1" if is_one_bit(network.layers) else "integers 2c - n",
    )
    return f"{about}\n{filled}"


def source(network: Network, about: str) -> str:
    """NAME.c."""
    name, layers = network.name, network.layers
    first, output = layers[0], layers[-1]
    parts = [
        about,
        fill("words.c", name),
        *_macros(network),
        *(line for layer in layers for line in _layer_tables(name, layer)),
        *_score_tables(network),
    ]
    if first.function == "first_conv":
        parts.append(_border_classes(name, first))
    slots, unit = FIRST_SLOTS[is_one_bit(layers)], output.shape.unit
    parts += [fill(f"{template}.c", name, **slots) for template in templates(layers)]
    calls = "\n".join(f"    {line}" for line in statements(layers))
    parts += [
        fill("predict.c", name, calls=calls, value="sum" if unit == 1 else f"sum / {unit}.0"),
        f"const char *const {name}_class_names[{name.upper()}_CLASSES] = {{\n"
        + "\n".join(f"    {_string(text)}," for text in network.model.spec.classes)
        + "\n};",
    ]
    assert output.function == "output"
    return "\n".join(part.rstrip("\n") + "\n" for part in parts)


def _macros(network: Network) -> Iterator[str]:
    prefix, scratch, bits = network.name.upper(), network.scratch, network.scores.bits
    first, *hidden, output = network.layers
    lines = [f"#define PLANES {first.planes}u", f"#define FIRST_ROW {row_words(first)}"]
    lines += _threshold_type(prefix, "first_threshold", [first])
    if hidden:
        lines += _threshold_type(prefix, "threshold", hidden)
    lines += [
        f"#define READ_SCORE(address) ((int{bits}_t){prefix}_READ_{bits}(address))",
        f"#define OUTPUT_INPUTS {output.shape.k}u",
        f"#define OUTPUT_ROW ({row_words(output)})",
    ]
    if not is_one_bit(network.layers):
        shape = first.shape
        lines += [
            f"#define FIRST_WEIGHT_BITS {shape.weight_bits}u",
            f"#define FIRST_OUTPUT_BITS {shape.output_bits}u",
            f"#define FIRST_LEVELS {2**shape.output_bits - 1}u",
            f"#define FIRST_PLANE ({plane_words(shape)})",
            f"#define OUTPUT_INPUT_BITS {output.shape.input_bits}u",
            f"#define OUTPUT_WEIGHT_BITS {output.shape.weight_bits}u",
            f"#define OUTPUT_UNIT {output.shape.unit}",
        ]
    lines += ["/* Words of the maps of bits that layers write in turns. */"]
    for bits in WORD_BITS:
        lines += [
            f"#{'if' if bits == WORD_BITS[0] else 'elif'} {prefix}_WORD_BITS == {bits}",
            f"#define EVEN_WORDS {scratch.even(bits)}u",
            f"#define ODD_WORDS {scratch.odd(bits)}u",
        ]
    lines += [
        "#endif",
        "",
        "/* Bytes of a row of bits, low ones first, as words; * the rest of a row. */",
    ]
    lines += [_chunk_macros(bits, prefix) for bits in WORD_BITS]
    yield "\n".join(lines) + "\n#endif"


def _chunk_macros(bits: int, prefix: str) -> str:
    """B1(x) to B8(x): 1 to 8 bytes as the elements of a table of words."""
    size = bits // 8
    lines = [f"#{'if' if bits == WORD_BITS[0] else 'elif'} {prefix}_WORD_BITS == {bits}"]
    for count in range(1, 9):
        words = range(-(-count // size))
        if size == 8:
            elements = ["0x##x##ULL"]
        else:
            elements = [
                f"(word)(0x##x##ULL >> {bits * i})" if i else "(word)0x##x##ULL" for i in words
            ]
        lines.append(f"#define B{count}(x) {', '.join(elements)}")
    return "\n".join(lines)


def _threshold_type(prefix: str, name: str, layers: list[Tables]) -> list[str]:
    bits = threshold_bits(layers)
    return [
        f"typedef int{bits}_t {name};",
        f"#define READ_{name.upper()}(address) ((int{bits}_t){prefix}_READ_{bits}(address))",
    ]


def _layer_tables(name: str, layer: Tables) -> Iterator[str]:
    shape = layer.shape
    prefix = layer.name
    rows, groups, bits = layer.weights.shape
    yield (
        f"static const word {prefix}_weights[{rows} * {groups} * WORDS({bits}u)] "
        f"{name.upper()}_TABLE = {{\n{_weights(layer.weights)}\n}};"
    )
    if shape.last:
        return
    struct = "first_threshold" if layer.previous is None else "threshold"
    count = " * ".join(str(n) for n in layer.threshold.shape if n != 1 or layer.threshold.size == 1)
    yield (
        f"static const {struct} {prefix}_thresholds[{count}] {name.upper()}_TABLE = {{\n"
        f"{_numbers(layer.threshold.ravel())}\n}};"
    )


def _weights(weights: NDArray[np.bool_]) -> str:
    """Rows of bits as B8(...), ..., a group after the other; the tail of a group as B1 to B7."""
    rows, groups, _ = weights.shape
    packed = np.packbits(weights, axis=2, bitorder="little").reshape(rows * groups, -1)
    whole_bytes = packed.shape[1] // 8 * 8
    chunks = _chunks(packed[:, :whole_bytes], 8)
    tails = _chunks(packed[:, whole_bytes:], packed.shape[1] - whole_bytes)
    each = whole_bytes // 8
    items = [
        item
        for i in range(len(packed))
        for item in (*chunks[i * each : (i + 1) * each], *tails[i : i + 1])
    ]
    lines = (", ".join(items[i : i + 4]) for i in range(0, len(items), 4))
    return "\n".join(f"    {line}," for line in lines)


def _chunks(packed: NDArray[np.uint8], size: int) -> list[str]:
    """B<size>(...) of each `size` bytes, as a number: from its high byte to its low one."""
    if not packed.size:
        return []
    numbers = packed.reshape(-1, size)[:, ::-1].tobytes().hex(" ", size).split()
    return [f"B{size}({number})" for number in numbers]


def _numbers(values: Iterable[int]) -> str:
    return "\n".join(_wrapped(_integer(int(value)) for value in values))


def _integer(value: int) -> str:
    """A C constant: -2^31 and -2^63 are no literals but expressions there."""
    if -(2**31) < value < 2**31:
        return f"{value}"
    return f"INT64_C({value})"


def _wrapped(items: Iterable[str]) -> Iterator[str]:
    line = "   "
    for item in items:
        if len(line) + len(item) + 2 > LINE:
            yield line
            line = "   "
        line += f" {item},"
    yield line


def _score_tables(network: Network) -> Iterator[str]:
    name, scores, layer = network.name, network.scores, network.model.layers[-1]
    prefix = name.upper()
    doubles = "\n".join(
        f"static const double {part}[{prefix}_CLASSES] = {{\n"
        + "\n".join(_wrapped(repr(float(v)) for v in values))
        + "\n};"
        for part, values in (
            ("score_mean", layer.mean),
            ("score_scale", layer.scale),
            ("score_shift", layer.shift),
        )
    )
    integers = "\n".join(
        f"static const {name}_score_t {part}[{prefix}_CLASSES] {prefix}_TABLE = {{\n"
        f"{_numbers(values)}\n}};"
        for part, values in (("score_scale", scores.a), ("score_shift", scores.b))
    )
    yield (
        f"/* Scores of the output layer's sums. */\n#ifdef {prefix}_DOUBLE_SCORES\n"
        "/* (sum - mean) * scale + shift, each operation rounded: not contracted. */\n"
        f"#ifdef __clang__\n#pragma STDC FP_CONTRACT OFF\n#endif\n{doubles}\n#else\n"
        "/* scale * sum + shift: proved to order the classes as the above does. */\n"
        f"{integers}\n#endif"
    )


def _border_classes(name: str, first: Tables) -> str:
    """The border class of a pixel, by 1, 2 (first, last column) + 4, 8 (first, last row)."""
    classes, _ = borders(*first.shape.size)
    of_code = np.zeros(16, int)
    if len(first.threshold) > 1:
        height, width = first.shape.size
        y, x = np.indices((height, width))
        code = (x == 0) + 2 * (x == width - 1) + 4 * (y == 0) + 8 * (y == height - 1)
        of_code[code] = classes
    return (
        "/* Border class of a pixel: 1, 2 in the first, last column, and 4, 8 in such a row. */\n"
        f"static const uint8_t border_classes[16] {name.upper()}_TABLE = {{\n"
        f"{_numbers(of_code)}\n}};"
    )


def _string(text: str) -> str:
    """A C string of UTF-8 bytes; others than plain ASCII as octal escapes."""
    safe = {*map(ord, " !#$%&'()*+,-./:;<=>@[]^_`{|}~")} | {
        *range(48, 58),
        *range(65, 91),
        *range(97, 123),
    }
    return '"' + "".join(chr(b) if b in safe else f"\\{b:03o}" for b in text.encode()) + '"'


def test(
    name: str, images: NDArray[np.uint8], sums: NDArray[np.int32], classes: NDArray[np.intp]
) -> str:
    """NAME_test.c, of images, their sums in the output layer, and their classes."""
    rows = [f"{{\n{_numbers(values)}\n}}," for values in images.reshape(len(images), -1)]
    sum_rows = [f"{{\n{_numbers(values)}\n}}," for values in sums]
    return fill("test.c", name, count=str(len(images)), images="\n".join(rows),
                sums="\n".join(sum_rows), classes=", ".join(map(str, classes)))  # fmt: skip


def about(name: str, source: dict[str, str], sha256: str, table: list[list[str]]) -> str:
    """The comment that begins the files; the first row of the table is its heading."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    facts = [f"{key}: {value}" for key, value in sorted(source.items()) if not key.endswith("_md5")]
    lines = [
        f"{name}: a binarized neural network, exported by bnnrun {__version__}.",
        "",
        *(f"  {line}" for line in facts),
        f"  sha256 of the packed file: {sha256}",
        "",
        *("  ".join(map(str.rjust, row, widths)) for row in table),
    ]
    body = "\n".join(f" * {line}".rstrip() for line in lines)
    return "/*" + body.removeprefix(" *").replace("*/", "* /") + "\n */\n"
