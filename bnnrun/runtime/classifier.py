"""What every network that is loaded to run has in common: images in, scores out."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bnnrun.data.dataset import ImageSpec
from bnnrun.errors import InputError


class ImageClassifier(ABC):
    """A network as a classifier of images; safe to call from any thread.

    Attributes:
        form:        of the network's file: "packed" or "onnx"
        spec:        shape of the images, names of the classes, largest pixel value
        source:      what the network was packed from (`PackedModel.source`)
        threads:     number of threads of a call
        classes:     names of the classes, in the order of the scores
        image_shape: (channels, height, width)
        max_pixel:   the largest pixel value
        device:      "cpu" or "cuda"
        why_not_gpu: for device=auto on the processor, one line that says why; else None
    """

    form: ClassVar[str]

    def __init__(
        self, spec: ImageSpec, source: dict[str, str], threads: int, device: str = "cpu"
    ) -> None:
        self.spec, self.source = spec, source
        self.classes = spec.classes
        self.image_shape = spec.image_shape
        self.max_pixel = spec.max_pixel
        self.threads, self.device = threads, device
        self.why_not_gpu: str | None = None

    def scores(self, images: ArrayLike) -> NDArray[np.float64]:
        """Scores of images; the largest one is that of the predicted class.

        Shapes:
            images:  (n, channels, height, width) uint8, n >= 0
            returns  (n, classes) float64

        Raises:
            InputError: a wrong shape or dtype, or a pixel above `max_pixel`
        """
        return self._scores(self._checked(images))

    def predict(self, images: ArrayLike) -> NDArray[np.intp]:
        """Index of the class of each image, (n,)."""
        answers: NDArray[np.intp] = self.scores(images).argmax(axis=1)
        return answers

    def compile(self) -> None:
        """Compile what `scores` calls, so that the first images do not wait for it."""
        self._scores(np.zeros((1, *self.image_shape), np.uint8))

    @property
    @abstractmethod
    def runtime(self) -> str:
        """What computes the scores, in words."""

    @abstractmethod
    def described(self) -> dict[str, Any]:
        """What computes the scores, for records."""

    @property
    def gpu(self) -> dict[str, Any] | None:
        """The GPU that the network runs on, for records; None on the processor."""
        return None

    @abstractmethod
    def _scores(self, pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
        """`scores` of checked images."""

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
