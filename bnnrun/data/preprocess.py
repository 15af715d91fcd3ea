"""How 8-bit pixels become network input: scaled, standardized or whitened.

Every form begins with x' = (p·x + q) / d of each pixel, in float64. With `scale` p, q and d are
integers, so that p·x + q times ±1 weights sums exactly, and d divides once, at the end.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bnnrun.config import Preprocessing
from bnnrun.data.dataset import Images
from bnnrun.errors import InputError

# Added to the eigenvalues. dp.ZCA, which the authors' Torch7 code calls, adds 0.1 on images in
# [0, 1]; on images in [-1, 1], as here, variances are four times as large: the same whitening.
ZCA_BIAS = 0.4
ZCA_PIXELS = 12_288  # 64 x 64 x 3: a matrix of 1.2 GB while it is made
BLOCK = 2**23  # pixels in float64 at once


@dataclass(frozen=True)
class Input:
    """What becomes of pixels: x' = (p·x + q) / d, then with zca x'' = (x' - mean) · W.

    Attributes:
        zca_mean:   (D,) float32, D = channels · height · width; None but with zca
        zca_matrix: (D, D) float32, symmetric
    """

    preprocessing: Preprocessing
    p: float
    q: float
    d: float
    zca_mean: NDArray[np.float32] | None = None
    zca_matrix: NDArray[np.float32] | None = None

    def apply(self, pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
        """The input of a network, for a batch: all of it is held in float64.

        Shapes:
            pixels:  (n, channels, height, width) uint8
            returns  (n, channels, height, width) float64
        """
        x = (self.p * pixels.astype(np.float64) + self.q) / self.d
        if self.zca_mean is None or self.zca_matrix is None:
            return x
        flat = x.reshape(len(x), -1) - self.zca_mean
        whitened: NDArray[np.float64] = flat @ self.zca_matrix.astype(np.float64)
        return whitened.reshape(x.shape)


def fit(preprocessing: Preprocessing, train: Images, max_pixel: int) -> Input:
    """The input of a network, from the training part alone.

    Args:
        max_pixel: the largest pixel value
    """
    if preprocessing is Preprocessing.standardize:
        return _fit_standardize(train, max_pixel)
    if preprocessing is Preprocessing.zca:
        return _fit_zca(train, max_pixel)
    return Input(Preprocessing.scale, p=2.0, q=-float(max_pixel), d=float(max_pixel))


def _fit_standardize(train: Images, max_pixel: int) -> Input:
    """One mean and one deviation over all pixels (Torch7 MNIST code)."""
    counts = np.zeros(max_pixel + 1, np.int64)
    for block in _blocks(train):
        counts += np.bincount(block.ravel(), minlength=max_pixel + 1)
    values = np.arange(max_pixel + 1)
    mean = float(values @ counts / counts.sum())
    deviation = float(np.sqrt((values - mean) ** 2 @ counts / counts.sum()))
    if deviation == 0:
        raise InputError(
            f"dataset.preprocessing=standardize: every training pixel is {mean:g}: nothing to "
            "divide by; dataset.preprocessing=scale takes such images"
        )
    return Input(Preprocessing.standardize, p=1.0, q=-mean, d=deviation)


def _fit_zca(train: Images, max_pixel: int) -> Input:
    """W = U diag(1 / sqrt(λ + bias)) Uᵀ, with the covariance U diag(λ) Uᵀ of images in [-1, 1].

    "Zero-phase" whitening as in dp.ZCA (Torch7 CIFAR-10 code): pixels come out uncorrelated, and
    of all such W this one changes the images least. The covariance is divided by n, not n - 1.
    The authors' code whitens a second time, by accident, with another method: we do not.
    """
    size = int(np.prod(train.pixels.shape[1:]))
    if size > ZCA_PIXELS:
        raise InputError(
            f"dataset.preprocessing=zca: {size:,} pixels an image, at most {ZCA_PIXELS:,}; take "
            "smaller images or dataset.preprocessing=standardize"
        )
    # Sums of integers below 2^53 are exact in float64: the same in whatever order they add.
    products, total = np.zeros((size, size)), np.zeros(size)
    for block in _blocks(train):
        x = block.reshape(len(block), -1).astype(np.float64)
        products += x.T @ x
        total += x.sum(axis=0)
    mean = total / len(train)
    products /= len(train)
    products -= np.outer(mean, mean)
    products *= (2 / max_pixel) ** 2
    eigenvalues, u = np.linalg.eigh(products)
    # A covariance has no negative eigenvalue; rounding may make one just below zero.
    matrix = (u / np.sqrt(np.maximum(eigenvalues, 0) + ZCA_BIAS)) @ u.T
    return Input(
        Preprocessing.zca,
        p=2.0,
        q=-float(max_pixel),
        d=float(max_pixel),
        zca_mean=(2 * mean / max_pixel - 1).astype(np.float32),
        zca_matrix=matrix.astype(np.float32),
    )


def _blocks(train: Images) -> Iterator[NDArray[np.uint8]]:
    images = max(1, BLOCK // int(np.prod(train.pixels.shape[1:])))
    for start in range(0, len(train), images):
        yield train.pixels[start : start + images]
