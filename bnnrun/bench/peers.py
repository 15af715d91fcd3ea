"""Libraries that multiply ±1 matrices too: an answer to "why not just use X?"

Each is timed in a process of its own (worker.py), with as many threads as ours, by that process's
clock. What it computes is compared with the definition first.

    NumKong       Hamming distances of rows of bits: d = popc(a ^ w), of which s = K - 2 d
    OpenVINO      BinaryConvolution: the product as a 1x1 convolution of an "image" of M pixels. Its
                  activations come and go as float32; the node alone is timed too, by its profile
    ONNX Runtime  MatMul in float32; MatMulInteger, int8

`pip install 'bnnrun[peers]'` installs them.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bnnrun.bench.measure import Competitor
from bnnrun.gemm.bits import Words
from bnnrun.gemm.compiled import thread_count
from bnnrun.roles import Form, Implementation, Role
from bnnrun.worker import SharedArray, Worker, shared, worker

if TYPE_CHECKING:
    from bnnrun.bench.gemm import Task

INSTALL = "pip install 'bnnrun[peers]'"
SETTLE_S = 0.05  # idle threads of a library wait in a loop, in which nobody else may be timed

Array = NDArray[Any]
Floats = NDArray[np.float32]
Answers = dict[str, Callable[[], object]]


class Prepared(NamedTuple):
    """A product that is ready to be computed.

    Attributes:
        multiply: writes the product
        memory:   arrays whose addresses the library has: they must stay alive
        node:     seconds of the latest product's central operation alone; None: not told
    """

    multiply: Callable[[], object]
    memory: tuple[object, ...]
    node: Callable[[], float] | None = None


class Method(NamedTuple):
    """How a library multiplies.

    Attributes:
        libraries: what must be installed, the one whose version is recorded first
        prepare:   (a, w, out, K, threads) -> Prepared, for the operands as `a` and `w` make them of
                   (bits, ±1 in float32)
        out:       type of what it writes, (M, N), or (N, M) if `by_columns`
        answer:    what it wrote, K -> s = A · Wᵀ
        form:      of the implementation
        unit:      K must be a multiple of it
    """

    libraries: tuple[str, ...]
    prepare: Callable[[Array, Array, Array, int, int], Prepared]
    a: Callable[[Words, Floats], Array]
    w: Callable[[Words, Floats], Array]
    out: type[np.generic]
    form: Form
    answer: Callable[[Array, int], Array] = lambda out, k: out
    by_columns: bool = False
    unit: int = 1


def _numkong(a: Array, w: Array, out: Array, k: int, threads: int) -> Prepared:
    import numkong

    packed, distances = numkong.hammings_pack(w, dtype="uint1"), numkong.from_dlpack(out)
    edges = np.linspace(0, len(a), threads + 1).astype(int).tolist()
    pool = ThreadPoolExecutor(threads)

    def part(begin: int, end: int) -> None:
        numkong.hammings_packed(a, packed, out=distances, start_row=begin, end_row=end)

    def multiply() -> None:
        for _ in pool.map(part, edges[:-1], edges[1:]):
            pass

    return Prepared(multiply, (a, packed, distances, out))


def _openvino(a: Array, w: Array, out: Array, k: int, threads: int) -> Prepared:
    import openvino
    from openvino import opset13 as ops

    (m, n), one_by_one = (len(a), len(w)), [1, 1]
    x = ops.parameter([1, k, m, 1], np.float32)
    zero, one = (ops.constant(np.full((1, 1, 1, 1), v, np.float32)) for v in (0, 1))
    weights = np.array(w).ravel()
    bits = openvino.Tensor(weights, openvino.Shape([n, k, 1, 1]), openvino.Type.u1)
    # A bit is 1 where the activation is not 0.
    activations = ops.fake_quantize(x, zero, zero, zero, one, 2)
    s = ops.binary_convolution(
        activations, ops.constant(bits), one_by_one, [0, 0], [0, 0], one_by_one,
        "xnor-popcount", 0.0,
    )  # fmt: skip
    settings = {
        "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "PERF_COUNT": True,
        "INFERENCE_PRECISION_HINT": "f32",
    }  # fmt: skip
    compiled = openvino.Core().compile_model(openvino.Model([s], [x]), "CPU", settings)
    request = compiled.create_infer_request()
    pixels = np.ascontiguousarray(a.T).reshape(1, k, m, 1)
    request.set_input_tensor(openvino.Tensor(pixels, shared_memory=True))
    request.set_output_tensor(openvino.Tensor(out.reshape(1, n, m, 1), shared_memory=True))

    def node() -> float:
        times = {each.node_type: each.real_time for each in request.get_profiling_info()}
        return float(times["BinaryConvolution"].total_seconds())

    return Prepared(request.infer, (pixels, weights, bits, out, compiled), node)


def _onnxruntime(a: Array, w: Array, out: Array, k: int, threads: int) -> Prepared:
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    constants = [numpy_helper.from_array(np.ascontiguousarray(w.T), "w")]
    if w.dtype == np.int8:
        constants.append(numpy_helper.from_array(np.ones((), np.uint8), "one"))
        node = helper.make_node("MatMulInteger", ["a", "w", "one"], ["s"])  # of a - 1, which is ±1
        types = TensorProto.UINT8, TensorProto.INT32
    else:
        node = helper.make_node("MatMul", ["a", "w"], ["s"])
        types = TensorProto.FLOAT, TensorProto.FLOAT
    graph = helper.make_graph(
        [node], "product",
        [helper.make_tensor_value_info("a", types[0], a.shape)],
        [helper.make_tensor_value_info("s", types[1], out.shape)],
        constants,
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    binding = session.io_binding()
    binding.bind_input("a", "cpu", 0, a.dtype, a.shape, a.ctypes.data)
    binding.bind_output("s", "cpu", 0, out.dtype, out.shape, out.ctypes.data)
    return Prepared(lambda: session.run_with_iobinding(binding), (a, out))


def _bytes(bits: Words, real: Floats) -> Array:
    """Rows of bits as bytes, the lowest bit first."""
    return np.ascontiguousarray(bits.view(np.uint8)[:, : -(-real.shape[1] // 8)])


def _real(bits: Words, real: Floats) -> Array:
    return real


METHODS = {
    "numkong": Method(
        ("numkong",), _numkong, _bytes, _bytes, np.uint32, Form.int32_out,
        answer=lambda d, k: k - 2 * d.astype(np.int64),
    ),
    "openvino": Method(
        ("openvino",), _openvino, _real, _bytes, np.float32, Form.float32_out,
        answer=lambda s, k: s.T, by_columns=True, unit=8,
    ),
    "onnxruntime_float32": Method(
        ("onnxruntime", "onnx"), _onnxruntime, _real, _real, np.float32, Form.float32_out
    ),
    "onnxruntime_int8": Method(
        ("onnxruntime", "onnx"), _onnxruntime, lambda bits, real: (real + 1).astype(np.uint8),
        lambda bits, real: real.astype(np.int8), np.int32, Form.int32_out,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Product:
    """A product of ±1 matrices by a method of METHODS; the arrays are what the method takes."""

    method: str
    a: SharedArray
    w: SharedArray
    out: SharedArray
    k: int
    threads: int

    @property
    def name(self) -> str:
        return f"multiplies by {METHODS[self.method].libraries[0]}"

    def open(self) -> Answers:
        method = METHODS[self.method]
        a, w, out = (array.open() for array in (self.a, self.w, self.out))
        prepared = method.prepare(a, w, out, self.k, self.threads)

        def seconds() -> float:
            began = time.perf_counter()
            prepared.multiply()
            spent = time.perf_counter() - began
            time.sleep(SETTLE_S)
            return spent

        def node() -> float:
            seconds()
            assert prepared.node is not None
            return prepared.node()

        answers: Answers = {"has node": lambda: prepared.node is not None, "seconds": seconds}
        return {**answers, "node": node, "version": lambda: metadata.version(method.libraries[0])}


LIBRARIES = tuple(dict.fromkeys(each for m in METHODS.values() for each in m.libraries))


def absent(libraries: Iterable[str] = LIBRARIES) -> list[str]:
    """Those of these libraries that are not installed."""
    return [each for each in libraries if find_spec(each) is None]


def unfit(k: int) -> dict[str, int]:
    """Libraries that do not take rows of K, with the unit that K must be a multiple of."""
    return {m.libraries[0]: m.unit for m in METHODS.values() if k % m.unit}


@contextmanager
def products(task: "Task") -> Iterator[list[Competitor]]:
    """The product of a task by each library that is installed and takes its K, within the block."""
    with ExitStack() as stack:
        yield [
            competitor
            for name, method in METHODS.items()
            if not absent(method.libraries) and task.k % method.unit == 0
            for competitor in stack.enter_context(_by(name, task))
        ]


@contextmanager
def _by(name: str, task: "Task") -> Iterator[list[Competitor]]:
    method, (m, n) = METHODS[name], (task.m, task.n)
    operands = method.a(task.a, task.real[0]), method.w(task.w, task.real[1])
    empty = np.empty((n, m) if method.by_columns else (m, n), method.out)
    with shared(*operands, empty) as files:
        a, w, out = files
        with worker(Product(name, a, w, out, task.k, thread_count())) as process:
            yield list(_competitors(name, task, process, out.open()))


def _competitors(name: str, task: "Task", process: Worker, out: Array) -> Iterator[Competitor]:
    """The whole, and its central operation alone where the library tells its time."""
    method = METHODS[name]

    def answer() -> Array:
        out.fill(0)
        process.ask("seconds")
        return method.answer(out, task.k)

    version = process.ask("version")
    questions = {method.form: "seconds"}
    if process.ask("has node") == "True":
        questions[Form.node] = "node"
    for form, question in questions.items():
        yield Competitor(
            Implementation.of(Role.peer, name, form),
            partial(process.ask, question),
            task.check(answer),
            macs=task.macs,
            timed=lambda question=question: float(process.ask(question)),  # type: ignore[misc]
            remark=version,
        )
