"""Packed networks: their file, and running them with NumPy, Numba or CuPy; never torch."""

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
    """A packed network and what is asked of one; any thread of a program may ask.

    Calls that overlap in time each have buffers of their own; on a GPU they wait for one another.
    A process that was forked from one that has used a network runs the same network on one thread.

    Attributes:
        threads:     that a call runs on, from whichever thread it comes
        classes:     their names, in the order of the scores
        image_shape: (channels, height, width)
        max_pixel:      the largest pixel value
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
        """Scores of images, the largest is the answer.

        Shapes:
            images:  (n, channels, height, width) uint8, n >= 0
            returns  (n, classes) float64

        Raises:
            InputError: another shape, another type, a pixel above `max_pixel`
        """
        return self.network.scores(self._checked(images))

    def trace(self, images: ArrayLike) -> tuple[list[NDArray[np.bool_]], NDArray[np.float64]]:
        """(bits of each hidden layer, scores) of at most `network.chunk` images.

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
        """The GPU that the network runs on, for a record; None on the processor."""
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
    """What a packed network runs on, and why not on a GPU where it was not asked to stay off it.

    Returns:
        (cpu or cuda, one line, or None)
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
    """A packed network, ready to run. Imports no torch, and CuPy only for a GPU.

    Any thread of the program may call what is returned, and so may a process forked from this one.

    Args:
        path:    the file, or the folder that holds model.safetensors
        kernel:  "xnor", or "reference", which needs no Numba and is slow
        first:   "auto", "bytes" or "planes": how the first layer multiplies
        threads: processor threads of each call, whichever thread it comes from; 0: as many as cores
        device:  "cpu", "cuda", or "auto": a GPU where there is one

    Raises:
        InputError: no whole packed network, another word than those above, or no GPU
    """
    words = (("kernel", kernel, Kernel), ("first", first, FirstLayer), ("device", device, Device))
    for name, value, kind in words:
        if value not in kind.__members__:
            raise InputError(f"{name}={value}: expected one of {', '.join(kind.__members__)}")
    on, _ = select_device(Device(device), Kernel(kernel))
    model = file.load(file.find(str(path)))
    return Classifier(model, Kernel(kernel), FirstLayer(first), on, threads)
