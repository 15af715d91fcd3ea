"""ONNX: a packed network in standard operators, whose scores are the packed network's bit for bit.

    image  uint8 (N, channels, height, width)  ->  scores  double (N, classes),  class  int64 (N,)

Every sum of a product is an integer that its floating-point type holds, in whatever order a runtime
adds. A comparison with t - 1/2 is s >= t also where a runtime's convolution rounds a little, as
Winograd's does. No graph has the operator Sign: its Sign(0) is 0.

Numbers of k bits are the integers 2c - n of their codes c, n = 2^k - 1; only the scores divide by
n_a n_w. The file holds the weights as bits. Operators on constants make ±1 and integers of them; a
runtime that folds constants, as ONNX Runtime does, computes them once, when it loads the file.
"""

import json

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper

import bnnrun
from bnnrun.errors import InputError
from bnnrun.export.export import Exported, Source
from bnnrun.export.graph import Graph
from bnnrun.export.layers import ExportLayer, bit_planes, export_layers
from bnnrun.runtime.model import borders
from bnnrun.runtime.onnx_file import CLASS, FORMAT, IMAGE, SCORES, VERSION

EXACT_FLOAT32 = 2**23  # below it float32 holds every integer, and the middle of every two


def export_onnx(source: Source) -> Exported:
    """The ONNX file of a packed network.

    Raises:
        InputError: a convolution whose sums float32 does not hold
    """
    graph, a, rows = Graph(), IMAGE, []
    for layer in export_layers(source.model):
        before = graph.size
        if layer.shape.last:
            add_scores(graph, layer, _product(graph, layer, a))
            graph.add("ArgMax", SCORES, output=CLASS, axis=1, keepdims=0)
        else:
            a = _activations(graph, layer, _product(graph, layer, a))
        weights = -(-layer.shape.weights * layer.shape.weight_bits // 8)
        rows.append([layer.shape.name, f"{weights:,}", f"{graph.size - before - weights:,}"])
    spec = source.model.spec
    image = helper.make_tensor_value_info(IMAGE, TensorProto.UINT8, ["N", *spec.image_shape])
    scores = helper.make_tensor_value_info(SCORES, TensorProto.DOUBLE, ["N", len(spec.classes)])
    index = helper.make_tensor_value_info(CLASS, TensorProto.INT64, ["N"])
    content = graph.file(
        source.name, inputs=[image], outputs=[scores, index], metadata=metadata(source, FORMAT)
    )
    rows.append(["names, metadata", "", f"{len(content) - graph.size:,}"])
    table = ["layer", "bytes of weights", "other bytes"], rows
    return Exported({f"{source.name}.onnx": content}, table)


def metadata(source: Source, form: str) -> dict[str, str]:
    """What an exported file tells of itself."""
    model = source.model
    return {
        "format": form,
        "version": str(VERSION),
        "bnnrun": bnnrun.__version__,
        "classes": json.dumps(model.spec.classes),
        "max_pixel": str(model.spec.max_pixel),
        "packed_sha256": source.sha256,
        "source": json.dumps(model.source, sort_keys=True),
    }


def add_scores(graph: Graph, layer: ExportLayer, s: str) -> None:
    """The output of the scores, by the operations of `PackedLayer.scores` in their order."""
    packed, v = layer.packed, graph.add("Cast", s, to=TensorProto.DOUBLE)
    if layer.shape.unit > 1:
        v = graph.add("Div", v, graph.constant("unit", np.array(layer.shape.unit, np.float64)))
    centred = graph.add("Sub", v, graph.constant("mean", packed.mean))
    scaled = graph.add("Mul", centred, graph.constant("scale", packed.scale))
    graph.add("Add", scaled, graph.constant("shift", packed.shift), output=SCORES)


def _product(graph: Graph, layer: ExportLayer, a: str) -> str:
    """s, the pre-activations of a layer: (N, channels, height, width), or (N, outputs)."""
    name = layer.shape.name
    dtype = _dtype(layer)
    if a == IMAGE or dtype is not np.float32:
        a = graph.add("Cast", a, to=helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))
    if layer.shape.is_conv:
        w = _weights(graph, layer, dtype)
        return graph.add("Conv", a, w, output=f"{name}.s", kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    flat = graph.add("Flatten", a)
    return graph.add("Gemm", flat, _weights(graph, layer, dtype), output=f"{name}.s", transB=1)


def _dtype(layer: ExportLayer) -> type[np.floating]:
    """The type that holds the layer's accumulators and thresholds."""
    if layer.largest < EXACT_FLOAT32:
        return np.float32
    if layer.shape.is_conv:
        raise InputError(
            f"{layer.shape.name}: its sums reach {layer.largest:,}; float32, which ONNX runtimes "
            f"convolve in, is exact to {EXACT_FLOAT32:,}"
        )
    return np.float64


def _weights(graph: Graph, layer: ExportLayer, dtype: type[np.floating]) -> str:
    """The integers of a layer's bits of weights, in the shape of `layer.graph_weight`.

    They are ±1 of one bit; of more, the sum over bit planes of 2^j (±1).
    """
    name, planes = layer.shape.name, bit_planes(layer.graph_weight, layer.shape.weight_bits)
    shape = planes.shape if len(planes) > 1 else planes.shape[1:]
    packed = np.packbits(planes.ravel(), bitorder="little")[:, None]
    masks = graph.constant("masks", (1 << np.arange(8)).astype(np.uint8))
    bytes_of_bits = graph.add("BitwiseAnd", graph.constant(f"{name}.weight", packed), masks)
    bits = graph.add("Cast", bytes_of_bits, to=TensorProto.BOOL)
    flat = graph.add("Reshape", bits, graph.constant("flat", np.array([-1])))
    start, end = graph.constant("0", np.array([0])), np.array([planes.size])
    weight_bits = graph.add("Slice", flat, start, graph.constant(f"{name}.weights", end))
    shaped = graph.add("Reshape", weight_bits, graph.constant(f"{name}.shape", np.array(shape)))
    if len(planes) == 1:
        return graph.add("Where", shaped, *_signs(graph, dtype), output=f"{name}.w")
    powers = (2 ** np.arange(len(planes))).astype(dtype).reshape(-1, *[1] * (len(shape) - 1))
    signs = graph.add("Where", shaped, *_signs(graph, dtype))
    weighted = graph.add("Mul", signs, graph.constant(f"{name}.powers", powers))
    return graph.add("ReduceSum", weighted, start, output=f"{name}.w", keepdims=0)


def _signs(graph: Graph, dtype: type[np.floating]) -> list[str]:
    """The constants +1 and -1."""
    return [graph.constant(f"{x:+}{dtype.__name__}", np.array(x, dtype)) for x in (1, -1)]


def _activations(graph: Graph, layer: ExportLayer, s: str) -> str:
    """The integers 2c - n, float32, of a layer's sums, pooled: ±1 of one bit.

    A code c is the number of thresholds reached, so that 2c - n is the sum over all n thresholds of
    +1 where a sum reaches it and -1 where not.
    """
    name, levels = layer.shape.name, len(layer.threshold)
    signs = []
    for level, t in enumerate(layer.threshold):
        suffix = f"{level}" if levels > 1 else ""
        threshold = _threshold(graph, layer, f"{name}.t{suffix}", t)
        bits = graph.add("GreaterOrEqual", s, threshold, output=f"{name}.bits{suffix}")
        signs.append(
            graph.add("Where", bits, *_signs(graph, np.float32), output=f"{name}.a{suffix}")
        )
    a = graph.add("Sum", *signs, output=f"{name}.a") if levels > 1 else signs[0]
    return graph.add("MaxPool", a, kernel_shape=[2, 2], strides=[2, 2]) if layer.shape.pool else a


def _threshold(graph: Graph, layer: ExportLayer, name: str, threshold: NDArray[np.int64]) -> str:
    """t - 1/2 of thresholds (border classes, N), in a shape that compares with the sums."""
    t = (threshold.T - 0.5).astype(_dtype(layer))
    if not layer.shape.is_conv:
        return graph.constant(name, t[:, 0])
    if t.shape[1] == 1:
        return graph.constant(name, t[:, :, None])
    # (N, height, width): of each pixel that of its border class.
    classes = borders(*layer.shape.size)[0].astype(np.uint8)
    index = graph.add("Cast", graph.constant("borders", classes), to=TensorProto.INT32)
    return graph.add("Gather", graph.constant(name, t), index, axis=1)
