"""The same network in other runtimes, from pixels to scores, each in a process of its own.

    ONNX Runtime  the exported ONNX file, in float32; and with ConvInteger and MatMulInteger, int8
    OpenVINO      the exported ONNX file, in float32 and in bf16; and as BinaryConvolution (a fully
                  connected layer is a 1x1 convolution) and FakeQuantize, its way to binarize

The first layer is in float32 everywhere. Labels are compared first; where bf16 rounds sums, the
share of equal labels is recorded.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from io import BytesIO
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bnnrun.bench.measure import Competitor
from bnnrun.bench.peers import SETTLE_S, absent
from bnnrun.gemm.compiled import thread_count
from bnnrun.roles import Implementation, Role
from bnnrun.worker import SharedArray, Worker, shared, worker

Floats = NDArray[np.float32]
Scores = NDArray[np.float32]
Pixels = NDArray[np.uint8]
# (a part of the images) -> their scores
Run = Callable[[Pixels], NDArray[Any]]


@dataclass(frozen=True)
class Layer:
    """A layer as another runtime computes it: y = s · scale + shift of the pooled sums.

    Attributes:
        w: (N, K), or (N, C, 3, 3) of a convolution, ±1
        scale, shift: (N,)
    """

    w: NDArray[np.int8]
    scale: Floats
    shift: Floats
    pool: bool
    last: bool

    @property
    def is_conv(self) -> bool:
        return self.w.ndim == 4

    def per_channel(self, values: NDArray[Any]) -> NDArray[Any]:
        """(N,) to stand beside the layer's sums."""
        return values.reshape((1, -1, 1, 1) if self.is_conv else (1, -1))


@dataclass(frozen=True)
class Description:
    """A network for other runtimes.

    Attributes:
        onnx: the exported file
        p, q: the input of the first layer is p · pixel + q
    """

    layers: tuple[Layer, ...]
    onnx: bytes
    p: float
    q: float


def _onnxruntime(network: Description, part: Pixels, threads: int) -> Run:
    return _session(network.onnx, threads, "scores")


def _onnxruntime_int8(network: Description, part: Pixels, threads: int) -> Run:
    from onnx import TensorProto, helper, numpy_helper

    nodes: list[Any] = []
    constants: list[Any] = []

    def constant(value: NDArray[Any]) -> str:
        constants.append(numpy_helper.from_array(value, f"c{len(constants)}"))
        return str(constants[-1].name)

    def add(kind: str, *inputs: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(kind, inputs, [f"n{len(nodes)}"], **attributes))
        return str(nodes[-1].output[0])

    def scalar(value: float) -> str:
        return constant(np.array(value, np.float32))

    one, two, none = (constant(np.array(v, np.uint8)) for v in (1, 2, 0))
    a = add("Cast", "image", to=TensorProto.FLOAT)
    a = add("Add", add("Mul", a, scalar(network.p)), scalar(network.q))
    for number, layer in enumerate(network.layers):
        if not layer.is_conv:
            a = add("Flatten", a)
        w = layer.w if layer.is_conv else np.ascontiguousarray(layer.w.T)
        pads = {"pads": [1, 1, 1, 1]} if layer.is_conv else {}
        if number == 0:
            s = add("Conv" if pads else "MatMul", a, constant(w.astype(np.float32)), **pads)
        else:
            kind = "ConvInteger" if pads else "MatMulInteger"  # of a - 1 and w - 1, which are ±1
            s = add(kind, a, constant((w + 1).astype(np.uint8)), one, one, **pads)
            s = add("Cast", s, to=TensorProto.FLOAT)
        if layer.pool:
            s = add("MaxPool", s, kernel_shape=[2, 2], strides=[2, 2])
        y = add("Mul", s, constant(layer.per_channel(layer.scale)))
        y = add("Add", y, constant(layer.per_channel(layer.shift)))
        a = y if layer.last else add("Where", add("GreaterOrEqual", y, scalar(0)), two, none)
    graph = helper.make_graph(
        nodes, "network",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["B", *part.shape[1:]])],
        [helper.make_tensor_value_info(a, TensorProto.FLOAT, ["B", len(network.layers[-1].w)])],
        constants,
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    return _session(model.SerializeToString(), threads, a)


def _session(content: bytes, threads: int, output: str) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    image = session.get_inputs()[0].name
    return lambda pixels: session.run([output], {image: pixels})[0]


def _openvino(precision: str, network: Description, part: Pixels, threads: int) -> Run:
    import openvino

    model = openvino.Core().read_model(BytesIO(network.onnx))
    model.reshape({0: openvino.PartialShape(list(part.shape))})
    return _compiled(model, threads, precision)


def _openvino_binary(network: Description, part: Pixels, threads: int) -> Run:
    import openvino
    from openvino import opset13 as ops

    def constant(values: Any) -> Any:
        return ops.constant(np.asarray(values, np.float32))

    x = ops.parameter(list(part.shape), np.uint8)
    a = ops.add(ops.multiply(ops.convert(x, np.float32), constant(network.p)), constant(network.q))
    weights: list[Any] = []
    if not network.layers[0].is_conv:
        a = ops.reshape(a, ops.constant(np.array([len(part), -1, 1, 1])), False)
    for number, layer in enumerate(network.layers):
        w, pads = layer.w, [int(layer.is_conv)] * 2
        if not layer.is_conv:
            w = w.reshape(*w.shape, 1, 1)
        if number == 0:
            s = ops.convolution(a, constant(w), [1, 1], pads, pads, [1, 1])
        else:
            weights.append(np.packbits(w.ravel() > 0, bitorder="little"))
            bits = openvino.Tensor(weights[-1], openvino.Shape(list(w.shape)), openvino.Type.u1)
            s = ops.binary_convolution(
                a, ops.constant(bits), [1, 1], pads, pads, [1, 1], "xnor-popcount", 0.0
            )
        if layer.pool:
            s = ops.max_pool(s, [2, 2], [1, 1], [0, 0], [0, 0], [2, 2]).output(0)
        scale, shift = (v.reshape(1, -1, 1, 1) for v in (layer.scale, layer.shift))
        if layer.last:
            a = ops.add(ops.multiply(s, constant(scale)), constant(shift))
            continue
        # 1 where s is above the threshold, or below where the scale is negative; a bit is what is
        # not 0.
        threshold, up = -shift / scale, scale > 0
        if layer.is_conv and not network.layers[number + 1].is_conv:
            # Flat before it is binarized: bits cannot be reshaped.
            s = ops.reshape(s, ops.constant(np.array([len(part), -1, 1, 1])), False)
            pixels = network.layers[number + 1].w.shape[1] // len(w)
            threshold, up = (np.repeat(v, pixels, axis=1) for v in (threshold, up))
        low, high = constant(~up), constant(up)
        a = ops.fake_quantize(s, constant(threshold), constant(threshold), low, high, 2)
    a = ops.reshape(a, ops.constant(np.array([len(part), -1])), False)
    return _compiled(openvino.Model([a], [x]), threads, "f32", weights)


def _compiled(model: Any, threads: int, precision: str, memory: Any = None) -> Run:
    """`memory` is what the model's constants lie in; it must stay alive."""
    import openvino

    settings = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1,
                "INFERENCE_PRECISION_HINT": precision}  # fmt: skip
    request = openvino.Core().compile_model(model, "CPU", settings).create_infer_request()

    def run(pixels: Pixels, memory: Any = memory) -> NDArray[Any]:
        scores: NDArray[Any] = request.infer({0: pixels})[0]
        return scores

    return run


class Method(NamedTuple):
    """How a runtime runs a network.

    Attributes:
        libraries: what must be installed, the one whose version is recorded first
        prepare: (network, a part of the images, threads) -> Run
        exact: gives the same labels
        unit: the inputs of every layer but the first must be a multiple of it
    """

    libraries: tuple[str, ...]
    prepare: Callable[[Description, Pixels, int], Run]
    exact: bool = True
    unit: int = 1

    def takes(self, network: Description) -> bool:
        """Whether its libraries are installed, and it runs layers of these sizes."""
        sizes = [layer.w.shape[1] for layer in network.layers[1:]]
        return not absent(self.libraries) and all(size % self.unit == 0 for size in sizes)


METHODS = {
    "onnxruntime_float32": Method(("onnxruntime", "onnx"), _onnxruntime),
    "onnxruntime_int8": Method(("onnxruntime", "onnx"), _onnxruntime_int8),
    "openvino_float32": Method(("openvino", "onnx"), partial(_openvino, "f32")),
    "openvino_bf16": Method(("openvino", "onnx"), partial(_openvino, "bf16"), exact=False),
    "openvino_binary": Method(("openvino",), _openvino_binary, unit=8),
}


@dataclass(frozen=True)
class Inference:
    """A network in a runtime; `part` images at once, of which there is a multiple."""

    method: str
    network: Description
    pixels: SharedArray
    scores: SharedArray
    part: int
    threads: int

    @property
    def name(self) -> str:
        return f"runs a network by {METHODS[self.method].libraries[0]}"

    def open(self) -> dict[str, Callable[[], object]]:
        pixels, scores = self.pixels.open(), self.scores.open()
        parts = [slice(i, i + self.part) for i in range(0, len(pixels), self.part)]
        method = METHODS[self.method]
        run = method.prepare(self.network, pixels[parts[0]], self.threads)

        def seconds() -> float:
            began = time.perf_counter()
            for part in parts:
                scores[part] = run(np.ascontiguousarray(pixels[part]))
            spent = time.perf_counter() - began
            time.sleep(SETTLE_S)
            return spent

        return {"seconds": seconds, "version": lambda: metadata.version(method.libraries[0])}


@contextmanager
def networks(
    network: Description, pixels: Pixels, labels: NDArray[np.intp], part: int, macs: float
) -> Iterator[list[Competitor]]:
    """The network by each runtime that is installed, within the block.

    Args:
        labels: of the first images, that are compared
        part:   images at once, at most
        macs:   of all images
    """
    size = max(n for n in range(1, part + 1) if len(pixels) % n == 0)
    empty = np.empty((len(pixels), len(network.layers[-1].w)), np.float32)
    with ExitStack() as stack:
        images, scores = stack.enter_context(shared(pixels, empty))
        competitors = []
        for name, method in METHODS.items():
            if method.takes(network):
                task = Inference(name, network, images, scores, size, thread_count())
                process = stack.enter_context(worker(task))
                competitors.append(_competitor(name, process, scores.open(), labels, macs))
        yield competitors


def _competitor(
    name: str, process: Worker, scores: Scores, labels: NDArray[np.intp], macs: float
) -> Competitor:
    def seconds() -> float:
        return float(process.ask("seconds"))

    def equal() -> NDArray[np.bool_]:
        scores.fill(np.nan)
        seconds()
        assert not np.isnan(scores).any()
        result: NDArray[np.bool_] = scores[: len(labels)].argmax(1) == labels
        return result

    def check() -> str | None:
        wrong = np.flatnonzero(~equal())
        if not METHODS[name].exact or not len(wrong):
            return None
        return f"image {wrong[0]}: another class ({len(wrong)} of {len(labels)} wrong)"

    remark = process.ask("version")
    if not METHODS[name].exact:
        remark += f", {equal().mean():.0%} of the labels are equal"
    implementation = Implementation.of(Role.peer, name)
    return Competitor(implementation, seconds, check, macs=macs, timed=seconds, remark=remark)
