"""Packed networks: their file, and inference with NumPy, Numba or CuPy, without torch.

Also inference of the ONNX files that are made of them.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bnnrun.config import Device, FirstLayer, Kernel
from bnnrun.errors import InputError
from bnnrun.runtime import file
from bnnrun.runtime.classifier import ImageClassifier
from bnnrun.runtime.model import PackedModel
from bnnrun.runtime.onnx_file import SUFFIX, OnnxClassifier
from bnnrun.runtime.reference import ReferenceNetwork

if TYPE_CHECKING:
    from bnnrun.runtime.cuda import CudaNetwork
    from bnnrun.runtime.network import PackedNetwork


class Classifier(ImageClassifier):
    """A packed network as a classifier of images.

    Concurrent calls use separate buffers on the processor; on a GPU they run one after the other.
    A process that was forked from one that has used a network runs it on one thread.

    Attributes:
        model:   the packed network
        network: what runs it
    """

    form = "packed"

    def __init__(
        self,
        model: PackedModel,
        kernel: Kernel,
        first_layer_method: FirstLayer,
        device: Device = Device.cpu,
        threads: int = 0,
    ) -> None:
        self.model, self.kernel = model, kernel
        self.network = _network(model, kernel, first_layer_method, device, threads)
        super().__init__(model.spec, model.source, self.network.threads, device.value)

    def trace(self, images: ArrayLike) -> tuple[list[NDArray[np.uint8]], NDArray[np.float64]]:
        """(codes, scores) of at most `network.chunk` images; codes is a list, an array a layer.

        A hidden layer of one bit has codes 0 and 1, which are its bits.

        Shapes:
            returns  (n, N) or (n, height, width, N) uint8 a layer; (n, classes) float64
        """
        pixels = self._checked(images)
        if len(pixels) > self.network.chunk:
            raise InputError(f"images: {len(pixels)}, expected at most {self.network.chunk}")
        return self.network.trace(pixels)

    def compile(self) -> None:
        if self.device == "cpu" and self.kernel is Kernel.xnor:
            from bnnrun.gemm.ahead import compile_ahead

            compile_ahead(super().compile, self.threads)
        else:
            super().compile()

    @property
    def runtime(self) -> str:
        return f"kernel {self.kernel.value}"

    def described(self) -> dict[str, Any]:
        method = getattr(self.network, "first_layer_method", self.kernel)
        return {"kernel": self.kernel.value, "first": method.value}

    @property
    def gpu(self) -> dict[str, Any] | None:
        from bnnrun.runtime.cuda import CudaNetwork

        return self.network.device.describe() if isinstance(self.network, CudaNetwork) else None

    def _scores(self, pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
        return self.network.scores(pixels)


def _network(
    model: PackedModel, kernel: Kernel, first_layer_method: FirstLayer, device: Device, threads: int
) -> "ReferenceNetwork | PackedNetwork | CudaNetwork":
    if kernel is Kernel.reference:
        if device is Device.cuda:
            raise InputError("kernel=reference device=cuda: the definition runs on the processor")
        return ReferenceNetwork(model)
    if device is Device.cuda:
        from bnnrun.gemm.cuda_device import open_device
        from bnnrun.runtime.cuda import CudaNetwork

        return CudaNetwork(model, open_device(), first_layer_method)
    from bnnrun.runtime.network import PackedNetwork  # with Numba, which the reference runs without

    return PackedNetwork(model, first_layer_method, threads)


def select_device(asked: Device, kernel: Kernel) -> tuple[Device, str | None]:
    """The device that a packed network runs on.

    Returns:
        (cpu or cuda; for device=auto on the processor, one line that says why, else None)
    """
    if asked is not Device.auto or kernel is Kernel.reference:
        return (Device.cpu if asked is Device.auto else asked), None
    from bnnrun.gemm import cuda_device

    why = cuda_device.missing()
    return (Device.cuda, None) if why is None else (Device.cpu, why)


def load(
    path: str | Path,
    kernel: str = "xnor",
    first_layer: str = "auto",
    threads: int = 0,
    device: str = "cpu",
) -> Classifier | OnnxClassifier:
    """Load a packed network, or an ONNX file. Imports no torch, and CuPy only for a GPU.

    The classifier may be called from any thread, and in a process forked from this one.

    Args:
        path: the file, or a folder with model.safetensors; NAME.onnx: one of `bnnrun export`,
            which ONNX Runtime runs on the processor
        kernel: "xnor", or "reference": slow, needs no Numba
        first_layer: "auto", "bytes" or "planes": the algorithm of the first layer
        threads: processor threads of a call; 0: the number of cores
        device: "cpu", "cuda", or "auto": a GPU where there is one

    Raises:
        InputError: the file is no intact packed network or exported ONNX file, an argument is
            none of those above, or there is no GPU, or no ONNX Runtime
    """
    words = (
        ("kernel", kernel, Kernel),
        ("first_layer", first_layer, FirstLayer),
        ("device", device, Device),
    )
    for name, value, enum in words:
        if value not in enum.__members__:
            raise InputError(f"{name}={value}: expected one of {', '.join(enum.__members__)}")
    resolved = file.find(str(path))
    if resolved.suffix == SUFFIX:
        others = {
            "kernel": (kernel, "xnor"),
            "first_layer": (first_layer, "auto"),
            "device": (device, "cpu"),
        }
        for name, (value, default) in others.items():
            if value not in (default, "auto"):
                raise InputError(
                    f"{name}={value}: of packed files; ONNX Runtime runs {resolved} "
                    "on the processor"
                )
        return OnnxClassifier(resolved, threads)
    on, why_not_gpu = select_device(Device(device), Kernel(kernel))
    model = file.load(resolved)
    classifier = Classifier(model, Kernel(kernel), FirstLayer(first_layer), on, threads)
    classifier.why_not_gpu = why_not_gpu
    return classifier
