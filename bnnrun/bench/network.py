"""Whole networks, from 8-bit pixels to labels: packed, and in PyTorch in each precision."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import islice

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from bnnrun.architecture import has_one_bit
from bnnrun.bench import peer_networks, roofline
from bnnrun.bench.layers import layers
from bnnrun.bench.measure import Competitor, Details, Explain, Timings, explain_nothing
from bnnrun.bench.peer_networks import Description
from bnnrun.config import (
    BenchConfig,
    BenchKernel,
    Binarizer,
    Device,
    FirstLayer,
    Preprocessing,
)
from bnnrun.data import describe
from bnnrun.data.dataset import Images
from bnnrun.data.preprocess import fit
from bnnrun.errors import InputError
from bnnrun.gemm import cpu, cuda, dispatch
from bnnrun.gemm.compiled import thread_count
from bnnrun.gemm.cuda_device import Device as Gpu
from bnnrun.gemm.cuda_device import open_device
from bnnrun.nn.engine import Engine
from bnnrun.nn.layers import Block
from bnnrun.nn.network import Network
from bnnrun.nn.quantizers import levels
from bnnrun.pack.convert import pack_network
from bnnrun.roles import YARDSTICK, Form, Implementation, Role
from bnnrun.runtime.cuda import CudaNetwork
from bnnrun.runtime.model import PackedModel
from bnnrun.runtime.network import PackedNetwork
from bnnrun.runtime.reference import ReferenceNetwork

TORCH_PART = 1000  # images that the competitors in PyTorch take at once, for memory
PEER_PART = 100  # images that other runtimes take at once, for their caches
PIXELS = 1024 * TORCH_PART  # of them together: patches take memory too, and a grid has so many rows
CHECKED = 64  # images whose answers are compared
SETTLED = 8  # images that give the batch norms statistics
PACKED = BenchKernel.xnor, BenchKernel.peers, BenchKernel.all
BASELINE_MACS = 2e8  # of the images that the unoptimized products take on a processor


@contextmanager
def competitors(config: BenchConfig) -> Iterator[tuple[list[Competitor], Explain]]:
    """The competitors of `workload=mlp` and `workload=convnet`, from pixels on the host.

    Weights are random: they do not change the time. Images are random and need no files. The second
    is what times the layers, where they are asked for, and gives the details of records.
    """
    _refuse(config)
    spec = describe(config.dataset)
    rng = np.random.default_rng(config.seed)
    pixels = rng.integers(0, spec.max_pixel + 1, (config.batch, *spec.image_shape)).astype(np.uint8)
    torch.manual_seed(config.seed)
    some = Images(pixels[:CHECKED], np.zeros(min(CHECKED, len(pixels)), np.uint8))
    input_scale = fit(config.dataset.preprocessing, some, spec.max_pixel)
    network = Network(config.arch, config.binarization, config.norm, spec, input_scale)
    _settle(network, rng, some.pixels[:SETTLED])
    model = pack_network(network, {})
    labels = _expected(network, some.pixels)
    # Of an image, in products of one bit with one bit, of a first layer in those with a pixel.
    macs = float(
        sum(s.macs * s.input_bits * s.weight_bits for s in (each.shape for each in model.layers))
    )

    gpu = open_device() if config.device is Device.cuda else None
    wait = gpu.wait if gpu is not None else lambda: None
    entries: list[Competitor] = []

    def add(
        implementation: Implementation,
        scores: Callable[[], NDArray[np.float64]],
        images: int = len(pixels),
        remark: str = "",
    ) -> None:
        def call() -> NDArray[np.intp]:
            labels: NDArray[np.intp] = scores().argmax(axis=1)
            return labels

        entries.append(
            Competitor(
                implementation,
                call,
                partial(_differs, call, labels),
                wait,
                macs=images * macs,
                remark=remark,
            )
        )

    if config.kernel in PACKED:
        for first in (FirstLayer.bytes, FirstLayer.planes):
            form = Form(first.value)
            if gpu is None:
                ours = Implementation.of(Role.ours, "xnor", form)
                add(ours, partial(_packed(model, ours).scores, pixels))
                continue
            for kernel in dispatch.variants(gpu):
                packed = CudaNetwork(model, gpu, first, kernel)
                add(Implementation.of(Role.ours, kernel, form), partial(packed.scores, pixels))
    if config.kernel is BenchKernel.reference:
        implementation = Implementation.of(Role.peer, "reference")
        add(implementation, partial(ReferenceNetwork(model).scores, pixels))
    x = torch.from_numpy(pixels)
    if gpu is not None and torch.cuda.is_available():
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        network.to("cuda")
    if config.kernel in (BenchKernel.baseline, BenchKernel.all):
        some_x = x if gpu is not None else x[: _baseline_images(len(x), macs)]
        implementation = Implementation.of(Role.baseline, "unoptimized")
        remark = f"{len(some_x)} images" if gpu is None else ""
        add(
            implementation, partial(_in_parts, _Baseline(network, gpu), some_x), len(some_x), remark
        )
    add(YARDSTICK, partial(_in_parts, _Float(network, torch.float32), x))
    if config.kernel in (BenchKernel.blas, BenchKernel.all):
        precisions = {"bf16": _Float(network, torch.bfloat16), "int8": _Int8(network)}
        for method, competitor in precisions.items():
            implementation = Implementation.of(Role.low_precision, method, Form.float32_first)
            add(implementation, partial(_in_parts, competitor, x))
    if gpu is not None:
        yield entries, explain_nothing
        return
    with _peers(config, partial(_described, network, model), pixels, labels, macs) as peers:
        yield [*entries, *peers, *roofline.rooflines()], partial(_layers, config, model, pixels)


def _layers(
    config: BenchConfig, model: PackedModel, pixels: NDArray[np.uint8], timings: Timings
) -> Details:
    """Details of the record of each packed network that was timed: its layers."""
    if not config.layers:
        return {}
    return {
        each: {"layers": layers(_packed(model, each), pixels, config.rounds, config.seconds)}
        for each in timings
        if each.role is Role.ours
    }


def _packed(model: PackedModel, implementation: Implementation) -> PackedNetwork:
    form = implementation.form
    assert form is not None
    return PackedNetwork(model, FirstLayer(form.value), thread_count())


@contextmanager
def _peers(
    config: BenchConfig,
    describe: Callable[[], Description],
    pixels: NDArray[np.uint8],
    labels: NDArray[np.intp],
    macs: float,
) -> Iterator[list[Competitor]]:
    """Other runtimes, where they are asked for and the network has one bit."""
    asked = config.kernel in (BenchKernel.peers, BenchKernel.all)
    if not asked or not has_one_bit(config.binarization):
        yield []
        return
    of_all = len(pixels) * macs
    with peer_networks.networks(describe(), pixels, labels, PEER_PART, of_all) as competitors:
        yield competitors


def _differs(call: Callable[[], NDArray[np.intp]], labels: NDArray[np.intp]) -> str | None:
    """The first image whose class is another; None if there is none."""
    got = call()[:CHECKED]
    wrong = np.flatnonzero(got != labels[: len(got)])
    if not len(wrong):
        return None
    i = wrong[0]
    return f"image {i}: class {got[i]}, expected {labels[i]} ({len(wrong)} wrong)"


def _refuse(config: BenchConfig) -> None:
    """InputError where there is no packed network to time."""
    if config.arch.name != config.workload.value:
        hint = "dataset=cifar10" if config.workload.value == "convnet" else "dataset=mnist"
        raise InputError(
            f"workload={config.workload.value}: the network is arch={config.arch.name}; add {hint} "
            f"(or arch={config.workload.value})"
        )
    b = config.binarization
    if Binarizer.none in (b.weights, b.activations):
        raise InputError("binarization: only ±1 weights and activations are packed; "
                         "binarization=deterministic")  # fmt: skip
    if config.layers and (config.device is Device.cuda or config.kernel not in PACKED):
        raise InputError(
            f"layers=true: times the packed network on the processor; given device="
            f"{config.device.value}, kernel={config.kernel.value}"
        )
    if config.dataset.preprocessing is Preprocessing.zca:
        raise InputError("dataset.preprocessing=zca: not packed; scale and standardize are")


@torch.no_grad()
def _settle(network: Network, rng: np.random.Generator, pixels: NDArray[np.uint8]) -> None:
    """Give the batch norms statistics of their sums, and half of the channels a negative gamma.

    Thresholds then stand halfway between two whole sums, where float32 cannot round a sum to the
    wrong side: the competitors must give the same labels.
    """
    x = torch.from_numpy(pixels.copy())
    d = network.input.d.item()
    for i, block in enumerate(network.blocks):
        unit = block.layer.unit * (d if i == 0 else 1.0)
        s = next(islice(Engine(network).trace(x), i, None)) * unit
        axes = [0, *range(2, s.dim())]
        block.norm.mean.copy_((s.mean(axes).round() + 0.5) / unit)
        block.norm.inv_std.copy_(unit / (s.std(axes, correction=0) + 1))
        block.norm.gamma.copy_(torch.from_numpy(rng.choice([-1.0, 1.0], len(block.norm.gamma))))


def _expected(network: Network, pixels: NDArray[np.uint8]) -> NDArray[np.intp]:
    """Labels by the arithmetic of every evaluation."""
    scores, _ = Engine(network).evaluate(torch.from_numpy(pixels))
    labels: NDArray[np.intp] = scores.argmax(1).numpy()
    return labels


def _described(network: Network, model: PackedModel) -> Description:
    """The network for other runtimes."""
    from bnnrun.export.export import Source
    from bnnrun.export.onnx import export_onnx

    layers = _Float(network, torch.float32)
    described = tuple(
        peer_networks.Layer(
            w.numpy().astype(np.int8), scale.flatten().numpy(), shift.flatten().numpy(),
            block.layer.pool, block.layer.last,
        )
        for block, w, (scale, shift) in zip(
            network.blocks, layers.weights, layers.norms, strict=True
        )
    )  # fmt: skip
    (onnx,) = export_onnx(Source(model, "network", "")).files.values()
    return Description(described, onnx, layers.p.item(), layers.q.item())


def _in_parts(
    network: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor
) -> NDArray[np.float64]:
    part = max(1, min(TORCH_PART, PIXELS // x[0, 0].numel()))
    with torch.inference_mode():
        parts = [network(x[i : i + part]).cpu() for i in range(0, len(x), part)]
        return torch.cat(parts).double().numpy()


class _Float:
    """The network as one would run it in PyTorch: ±1 weights as floats, batch norm as a line.

    Numbers of k bits are the integers 2c - n, by a formula with floor. The input stays p·x + q,
    integers whose float32 sums are exact; d goes to the first line.
    In bfloat16 the first layer and every batch norm stay float32: sums of 8-bit pixels would be
    rounded, and signs with them.
    """

    def __init__(self, network: Network, precision: torch.dtype) -> None:
        self.network, self.precision = network, precision
        self.weights = [
            levels(block.product.weight.detach(), block.layer.weight_bits)
            for block in network.blocks
        ]
        self.weights[1:] = [w.to(precision) for w in self.weights[1:]]
        input_scale = network.input
        self.p, self.q = input_scale.p.float(), input_scale.q.float()
        divisors = [input_scale.d.item()] + [1.0] * (len(network.blocks) - 1)
        self.norms = [_line(b, d) for b, d in zip(network.blocks, divisors, strict=True)]

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        a = self.p * x.to(self.p.device).float() + self.q
        for block, w, (scale, shift) in zip(
            self.network.blocks, self.weights, self.norms, strict=True
        ):
            s = self.multiply(block, a, w).float()
            s = F.max_pool2d(s, 2) if block.layer.pool else s
            y = torch.addcmul(shift, s, scale)
            if block.layer.last:
                return y
            a = self.activate(block, y)
        raise AssertionError("a network ends in its output layer")

    def multiply(self, block: Block, a: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return F.conv2d(a, w, padding=1) if block.layer.is_conv else F.linear(a.flatten(1), w)

    def activate(self, block: Block, y: torch.Tensor) -> torch.Tensor:
        n = 2**block.layer.output_bits - 1
        if n == 1:
            return y.ge(0).to(self.precision).mul_(2).sub_(1)
        codes = y.mul_(n / 2).add_((n + 1) / 2).floor_().clamp_(0, n)
        return codes.mul_(2).sub_(n).to(self.precision)


class _Int8(_Float):
    """Products of bytes with 32-bit sums; convolutions by patches, PyTorch having no other."""

    def __init__(self, network: Network) -> None:
        super().__init__(network, torch.int8)
        self.weights[1:] = [_rows(w) for w in self.weights[1:]]

    def multiply(self, block: Block, a: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        if a.dtype != torch.int8:
            return super().multiply(block, a, w)
        return _by_rows(block, a, w, lambda a, w: torch._int_mm(a, w.t()))


class _Baseline(_Float):
    """Every product by the unoptimized float32 kernel, as in the authors' timing; the first
    layer's too.
    """

    def __init__(self, network: Network, gpu: Gpu | None) -> None:
        super().__init__(network, torch.float32)
        self.weights, self.gpu = [_rows(w) for w in self.weights], gpu

    def multiply(self, block: Block, a: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return _by_rows(block, a, w, self.product)

    def product(self, a: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        """(M, K), (N, K) -> (M, N)."""
        a, s = a.contiguous(), a.new_empty(len(a), len(w))
        if self.gpu is None:
            cpu.baseline(a.numpy(), w.numpy(), s.numpy())
        else:
            cuda.baseline(self.gpu, a, w, s)
        return s


def _baseline_images(images: int, macs: float) -> int:
    """A few: all would take minutes. A multiple of the threads, which share them out."""
    threads = thread_count()
    return min(images, threads * max(1, round(BASELINE_MACS / macs / threads)))


def _rows(w: torch.Tensor) -> torch.Tensor:
    """Weights as a matrix, a row an output, a filter's channels innermost."""
    return (w.permute(0, 2, 3, 1) if w.dim() == 4 else w).flatten(1).contiguous()


def _by_rows(
    block: Block,
    a: torch.Tensor,
    w: torch.Tensor,
    product: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
) -> torch.Tensor:
    """A layer's sums by a product of matrices with `_rows`: a convolution's of its patches."""
    if not block.layer.is_conv:
        return product(a.flatten(1), w)
    padded = F.pad(a.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1))
    patches = padded.unfold(1, 3, 1).unfold(2, 3, 1).permute(0, 1, 2, 4, 5, 3)
    n, height, width = patches.shape[:3]
    s = product(patches.reshape(n * height * width, -1), w)
    return s.view(n, height, width, -1).permute(0, 3, 1, 2)


def _line(block: Block, d: float) -> tuple[torch.Tensor, torch.Tensor]:
    """(scale, shift) of (s / (d n_a n_w)) · scale + shift, float32, to stand beside the sums."""
    d *= block.layer.unit
    mean, scale, shift = (torch.from_numpy(each) for each in block.norm.affine())
    shape = (1, -1, 1, 1) if block.layer.is_conv else (1, -1)
    return (scale / d).float().view(shape), (shift - mean * scale).float().view(shape)
