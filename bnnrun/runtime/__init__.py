"""Packed networks: their file, and inference with NumPy, Numba or CuPy, without torch."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bnnrun.config import Device, FirstLayer, Kernel
from bnnrun.errors import InputError
from bnnrun.runtime import file
from bnnrun.runtime.model import PackedModel
from bnnrun.runtime.reference import ReferenceNetwork

if TYPE_CHECKING:
    from bnnrun.runtime.cuda import CudaNetwork
    from bnnrun.runtime.network import PackedNetwork


class Classifier:
    """A packed network as a classifier of images; safe to call from any thread.

    Concurrent calls use separate buffers on the processor; on a GPU they run one after the other.
    A process that was forked from one that has used a network runs it on one thread.

    Attributes:
        threads:     number of threads of a call
        classes:     names of the classes, in the order of the scores
        image_shape: (channels, height, width)
        max_pixel:   the largest pixel value
        device:      "cpu" or "cuda"
    """

    def __init__(
        self,
        model: PackedModel,
        kernel: Kernel,
        first_layer_method: FirstLayer,
        device: Device = Device.cpu,
        threads: int = 0,
    ) -> None:
        self.model = model
        self.classes = model.spec.classes
        self.image_shape = model.spec.image_shape
        self.max_pixel = model.spec.max_pixel
        self.device = device.value
        self.network = _network(model, kernel, first_layer_method, device, threads)
        self.threads = self.network.threads

    def scores(self, images: ArrayLike) -> NDArray[np.float64]:
        """Scores of images; the largest one is that of the predicted class.

        Shapes:
            images:  (n, channels, height, width) uint8, n >= 0
            returns  (n, classes) float64

        Raises:
            InputError: a wrong shape or dtype, or a pixel above `max_pixel`
        """
        return self.network.scores(self._checked(images))

    def trace(self, images: ArrayLike) -> tuple[list[NDArray[np.bool_]], NDArray[np.float64]]:
        """(hidden, scores) of at most `network.chunk` images; hidden is a list, an array a layer.

        Shapes:
            returns  (n, N) or (n, height, width, N) bool a layer; (n, classes) float64
        """
        pixels = self._checked(images)
        if len(pixels) > self.network.chunk:
            raise InputError(f"images: {len(pixels)}, expected at most {self.network.chunk}")
        return self.network.trace(pixels)

    def _checked(self, images: ArrayLike) -> NDArray[np.uint8]:
        pixels = np.asarray(images)
        if pixels.ndim != 4 or pixels.shape[1:] != self.image_shape or pixels.dtype != np.uint8:
            raise InputError(
                f"images: {pixels.dtype} {pixels.shape}, expected uint8 (n, "
                f"{', '.join(map(str, self.image_shape))})"
            )
        if self.max_pixel < 255 and pixels.size and pixels.max() > self.max_pixel:
            raise InputError(f"images: a pixel of {pixels.max()}, expected 0 to {self.max_pixel}")
        return pixels

    @property
    def gpu(self) -> dict[str, Any] | None:
        """The GPU that the network runs on, for records; None on the processor."""
        from bnnrun.runtime.cuda import CudaNetwork

        return self.network.device.describe() if isinstance(self.network, CudaNetwork) else None

    def predict(self, images: ArrayLike) -> NDArray[np.intp]:
        """Index of the class of each image, (n,)."""
        answers: NDArray[np.intp] = self.scores(images).argmax(axis=1)
        return answers


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
    first: str = "auto",
    threads: int = 0,
    device: str = "cpu",
) -> Classifier:
    """Load a packed network. Imports no torch, and CuPy only for a GPU.

    The classifier may be called from any thread, and in a process forked from this one.

    Args:
        path:    the file, or a folder with model.safetensors
        kernel:  "xnor", or "reference": slow, needs no Numba
        first:   "auto", "bytes" or "planes": the algorithm of the first layer
        threads: processor threads of a call; 0: the number of cores
        device:  "cpu", "cuda", or "auto": a GPU where there is one

    Raises:
        InputError: the file is no intact packed network, an argument is none of those above, or
            there is no GPU
    """
    words = (("kernel", kernel, Kernel), ("first", first, FirstLayer), ("device", device, Device))
    for name, value, kind in words:
        if value not in kind.__members__:
            raise InputError(f"{name}={value}: expected one of {', '.join(kind.__members__)}")
    on, _ = select_device(Device(device), Kernel(kernel))
    model = file.load(file.find(str(path)))
    return Classifier(model, Kernel(kernel), FirstLayer(first), on, threads)
