"""QONNX: a packed network in the operators of quantized hardware flows, such as FINN's.

    image  float32 (1, channels, height, width), integers  ->  scores  double (1, classes)

BipolarQuant is the Sign of the weights, with Sign(0) = +1; MultiThreshold counts the thresholds
that a sum reaches: 2c - n of a code c, where n of k bits is 2^k - 1. Weights of k > 1 bits are the
integers 2c - n, which Quant takes as signed integers of k + 1 bits of scale 1. Values (2c - n) / n
would not be exact: float32 holds no thirds. The sums are n_a n_w times what they stand for, and the
scores divide by that. The operators are of the package qonnx, whose executor gives the packed
network's scores. The file holds weights as float32, as those flows expect.
"""

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper

from bnnrun.errors import InputError
from bnnrun.export.export import Exported, Source
from bnnrun.export.graph import Graph
from bnnrun.export.layers import ExportLayer, export_layers
from bnnrun.export.onnx import add_scores, metadata
from bnnrun.runtime.model import borders
from bnnrun.runtime.onnx_file import IMAGE, SCORES

DOMAIN, FORMAT = "qonnx.custom_op.general", "bnnrun-qonnx"
EXACT_FLOAT32 = 2**24  # QONNX computes in float32


def export_qonnx(source: Source) -> Exported:
    """The QONNX file of a packed network.

    Raises:
        InputError: first sums that float32 does not hold, or thresholds of a first convolution that
            are not those of one batch norm
    """
    graph, a, rows = Graph(), IMAGE, []
    types = {IMAGE: "UINT8"}
    p, q, _ = source.model.input
    for i, layer in enumerate(export_layers(source.model)):
        name, shape, before = layer.shape.name, layer.shape, graph.size
        if i == 0 and shape.is_conv:
            # The padding is 0 of p·x + q, as in training: one threshold serves every pixel.
            a = graph.add("Mul", a, graph.constant("input.p", np.array([p], np.float32)))
            a = graph.add("Add", a, graph.constant("input.q", np.array([q], np.float32)))
            thresholds = _of_scaled_pixels(layer, p, q, source.model.spec.max_pixel)
        elif layer.largest >= EXACT_FLOAT32:
            raise InputError(f"{name}: its sums reach {layer.largest:,}; float32, in which QONNX "
                             f"computes, is exact to {EXACT_FLOAT32:,}")  # fmt: skip
        else:
            thresholds = layer.threshold.reshape(-1, shape.outputs).astype(np.float64)
        s = _product(graph, layer, a)
        if shape.last:
            add_scores(graph, layer, s)
        else:
            t = graph.constant(f"{name}.t", thresholds.T.astype(np.float32))
            a = graph.add(
                "MultiThreshold", s, t, domain=DOMAIN, out_dtype=_type(shape.output_bits),
                out_scale=2.0, out_bias=1.0 - 2**shape.output_bits,
                data_layout="NCHW" if shape.is_conv else "NC",
            )  # fmt: skip
            if shape.pool:
                a = graph.add("MaxPool", a, kernel_shape=[2, 2], strides=[2, 2])
        types[f"{name}.weight"] = _type(shape.weight_bits)
        rows.append([name, f"{graph.size - before:,}"])
    spec = source.model.spec
    image = helper.make_tensor_value_info(IMAGE, TensorProto.FLOAT, [1, *spec.image_shape])
    scores = helper.make_tensor_value_info(SCORES, TensorProto.DOUBLE, [1, len(spec.classes)])
    content = graph.file(
        source.name,
        inputs=[image],
        outputs=[scores],
        metadata=metadata(source, FORMAT),
        domain=DOMAIN,
        types=types,
    )
    rows.append(["names, metadata", f"{len(content) - graph.size:,}"])
    return Exported({f"{source.name}_qonnx.onnx": content}, (["layer", "bytes"], rows))


def _product(graph: Graph, layer: ExportLayer, a: str) -> str:
    """s, the pre-activations of a layer: (1, channels, height, width), or (1, outputs)."""
    name = layer.shape.name
    w = layer.graph_weight if layer.shape.is_conv else layer.graph_weight.T
    real = graph.constant(f"{name}.weight", np.ascontiguousarray(w, np.float32))
    one = graph.constant("one", np.array([1], np.float32))
    bits = layer.shape.weight_bits
    if bits == 1:
        w_b = graph.add("BipolarQuant", real, one, domain=DOMAIN, output=f"{name}.w")
    else:
        zero = graph.constant("zero", np.array([0], np.float32))
        width = graph.constant(f"{name}.bits", np.array(bits + 1, np.float32))
        w_b = graph.add(
            "Quant", real, one, zero, width, domain=DOMAIN, output=f"{name}.w",
            signed=1, narrow=1, rounding_mode="ROUND",
        )  # fmt: skip
    if layer.shape.is_conv:
        return graph.add("Conv", a, w_b, output=f"{name}.s", kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    return graph.add("MatMul", graph.add("Flatten", a), w_b, output=f"{name}.s")


def _type(bits: int) -> str:
    """QONNX's data type of the integers 2c - n."""
    return "BIPOLAR" if bits == 1 else f"INT{bits + 1}"


def _of_scaled_pixels(
    layer: ExportLayer, p: float, q: float, max_pixel: int
) -> NDArray[np.float64]:
    """Thresholds of the sums u = p·s + q·ones that a first convolution makes of p·x + q.

    In a border class, whose taps inside the image have weights of the sum `ones`, s >= t holds for
    u >= p·t + q·ones, and does not for u = p·(t - 1) + q·ones. Between all classes' two ends lies
    the batch norm's threshold; its middle is far from sums that float32 rounds.

    Shapes:
        returns  (2^bits - 1 of an output, N) float64
    """
    taps = borders(*layer.shape.size)[1].astype(np.float64)
    ones = np.einsum("nchw,bhw->bn", layer.graph_weight.astype(np.float64), taps)
    t = layer.threshold.astype(np.float64)
    # Past either end of the sums there is no other side.
    low = np.where(t == -layer.largest, -np.inf, p * (t - 1) + q * ones).max(axis=1)
    high = np.where(t == layer.largest + 1, np.inf, p * t + q * ones).min(axis=1)
    k, largest = layer.shape.k, (abs(p) * max_pixel + abs(q)) * layer.shape.unit
    rounding = 0.0 if p % 1 == q % 1 == 0 else (k + 3) * k * largest * 2.0**-24
    if k * largest >= EXACT_FLOAT32 or np.any(high - low <= 2 * rounding):
        raise InputError(
            f"{layer.shape.name}: no thresholds of its scaled pixels, summed in float32, are those "
            "of the packed network; format=onnx has no such limit"
        )
    low, high = np.where(np.isinf(low), high, low), np.where(np.isinf(high), low + 2 * p, high)
    middle: NDArray[np.float64] = (low + high) / 2
    return middle
