"""Thresholds of the kernels' accumulators, the same on every device.

Where gamma < 0 the weights are negated, so that every hidden bit is accumulator <= threshold.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnnrun.gemm.bits import popcount_thresholds, unpack
from bnnrun.runtime.model import PackedLayer, borders


def signed_weights(layer: PackedLayer) -> NDArray[np.int8]:
    """Weights (N, K) int8, ±1, negated where `flip`."""
    w = unpack(layer.weight, layer.shape.k)
    w[layer.flip] *= -1
    return w


def accumulator_thresholds(
    layer: PackedLayer, w: NDArray[np.int8], is_first: bool = False, planes: int = 0
) -> NDArray[np.integer[Any]]:
    """The largest accumulator that gives bit 1, of a hidden layer: (border classes, N).

    The accumulator is popc(a ^ w); in the first layer -x · w of bytes, or the sum of
    2^i · popc(plane i ^ w) of bit planes.

    Args:
        w:        from `signed_weights`
        is_first: the layer multiplies pixels
        planes:   bit planes of the pixels; 0: bytes
    """
    t: NDArray[np.integer[Any]] = np.where(
        layer.flip, -layer.threshold.astype(np.int64), layer.threshold
    )
    if is_first:
        # The accumulator of bit planes is -x · w + (2^planes - 1) · (number of w that are +1).
        weighted: NDArray[np.integer[Any]] = -t + (2**planes - 1) * (w > 0).sum(axis=1)
        return weighted
    if layer.shape.is_conv:
        t = t + _on_padding(layer, w)
    thresholds: NDArray[np.integer[Any]] = popcount_thresholds(t, layer.shape.k)
    return thresholds


def _on_padding(layer: PackedLayer, w: NDArray[np.int8]) -> NDArray[np.int64]:
    """What padding adds to the pre-activations, as its 0 bits act as -1: (border classes, N)."""
    _, taps = borders(*layer.shape.size)
    tap_sums = w.reshape(len(w), 9, -1).sum(axis=2, dtype=np.int64)
    missing = (~taps).reshape(len(taps), 9).astype(np.int64)
    added: NDArray[np.int64] = -missing @ tap_sums.T
    return added
