"""Packed networks: their file, and running them with NumPy, or fast with Numba; never torch."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bnnrun.config import FirstLayer, Kernel
from bnnrun.errors import InputError
from bnnrun.runtime import file
from bnnrun.runtime.model import PackedModel
from bnnrun.runtime.reference import ReferenceNetwork

if TYPE_CHECKING:
    from bnnrun.runtime.network import PackedNetwork


class Classifier:
    """A packed network and what is asked of one.

    Attributes:
        classes:     their names, in the order of the scores
        image_shape: (channels, height, width)
        levels:      the largest pixel value
    """

    def __init__(self, model: PackedModel, kernel: Kernel, first: FirstLayer) -> None:
        self.model = model
        self.classes = model.kind.classes
        self.image_shape = model.kind.image_shape
        self.levels = model.kind.levels
        self.network = _network(model, kernel, first)

    def scores(self, images: ArrayLike) -> NDArray[np.float64]:
        """Scores of images, the largest is the answer.

        Shapes:
            images:  (n, channels, height, width) uint8, n >= 0
            returns  (n, classes) float64

        Raises:
            InputError: another shape, another type, a pixel above `levels`
        """
        pixels = np.asarray(images)
        if pixels.ndim != 4 or pixels.shape[1:] != self.image_shape or pixels.dtype != np.uint8:
            raise InputError(
                f"images: {pixels.dtype} {pixels.shape}, expected uint8 (n, "
                f"{', '.join(map(str, self.image_shape))})"
            )
        if self.levels < 255 and pixels.size and pixels.max() > self.levels:
            raise InputError(f"images: a pixel of {pixels.max()}, expected 0 to {self.levels}")
        return self.network.scores(pixels)

    def predict(self, images: ArrayLike) -> NDArray[np.intp]:
        """Index of the class of each image, (n,)."""
        answers: NDArray[np.intp] = self.scores(images).argmax(axis=1)
        return answers


def _network(
    model: PackedModel, kernel: Kernel, first: FirstLayer
) -> "ReferenceNetwork | PackedNetwork":
    if kernel is Kernel.reference:
        return ReferenceNetwork(model)
    from bnnrun.runtime.network import PackedNetwork  # with Numba, which the reference runs without

    return PackedNetwork(model, first)


def load(
    path: str | Path, kernel: str = "xnor", first: str = "auto", threads: int = 0
) -> Classifier:
    """A packed network, ready to run. Imports neither torch nor CuPy.

    Args:
        path:    the file, or the folder that holds model.safetensors
        kernel:  "xnor", or "reference", which needs no Numba and is slow
        first:   "auto", "bytes" or "planes": how the first layer multiplies
        threads: processor threads, for the whole process; 0: as many as cores

    Raises:
        InputError: no whole packed network, or another word than those above
    """
    for name, value, kind in (("kernel", kernel, Kernel), ("first", first, FirstLayer)):
        if value not in kind.__members__:
            raise InputError(f"{name}={value}: expected one of {', '.join(kind.__members__)}")
    if kernel == "xnor":
        from bnnrun.gemm.xnor import set_threads

        set_threads(threads)
    model = file.load(file.find(str(path)))
    return Classifier(model, Kernel(kernel), FirstLayer(first))
