"""Thresholds of the kernels' accumulators, the same on every device.

Where gamma < 0 the weights are negated, so that every threshold is reached where the accumulator is
at most as large.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnnrun.gemm.bits import popcount_thresholds
from bnnrun.runtime.model import PackedLayer, borders


def signed_weights(layer: PackedLayer) -> NDArray[np.int8]:
    """Weights (N, K) int8, the integers 2c - n, negated where `flip`."""
    w = layer.weight_levels()
    w[layer.flip] *= -1
    return w


def weight_planes(w: NDArray[np.int8], bits: int) -> NDArray[np.bool_]:
    """Bit planes of the codes c of weights 2c - n, the lowest first: (N, K) -> (bits, N, K)."""
    codes = (w + np.int8(2**bits - 1)) // 2
    planes: NDArray[np.bool_] = (codes >> np.arange(bits, dtype=np.int8)[:, None, None] & 1) != 0
    return planes


def accumulator_thresholds(
    layer: PackedLayer, w: NDArray[np.int8], is_first: bool = False, planes: int = 0
) -> NDArray[np.integer[Any]]:
    """The largest accumulator that reaches each threshold: (thresholds, border classes, N).

    The accumulator is the sum over bit planes of 2^(i + j) · popc(a_i ^ w_j), of hidden activations
    as of pixels; in a first layer of bytes it is -x · w.

    Args:
        w:        from `signed_weights`
        is_first: the layer multiplies pixels
        planes:   bit planes of the pixels; 0: bytes
    """
    t: NDArray[np.integer[Any]] = np.where(
        layer.flip, -layer.threshold.astype(np.int64), layer.threshold
    )
    if is_first:
        # Bits of pixels are 0 and 1: x · w = sum of 2^i b_i · w, and with w = sum of 2^j w_j of ±1,
        # b_i · w_j = (number of w_j that are +1) - popc(b_i ^ w_j).
        n_w = 2**layer.shape.weight_bits - 1
        ones = (w.astype(np.int64) + n_w).sum(axis=1) // 2
        weighted: NDArray[np.integer[Any]] = -t + (2**planes - 1) * ones
        return weighted
    if layer.shape.is_conv:
        t = t + _on_padding(layer, w)
    thresholds: NDArray[np.integer[Any]] = popcount_thresholds(t, layer.shape.unit * layer.shape.k)
    return thresholds


def _on_padding(layer: PackedLayer, w: NDArray[np.int8]) -> NDArray[np.int64]:
    """What padding adds to the pre-activations, as its 0 bits act as -n_a: (border classes, N)."""
    _, taps = borders(*layer.shape.size)
    tap_sums = w.reshape(len(w), 9, -1).sum(axis=2, dtype=np.int64)
    missing = (~taps).reshape(len(taps), 9).astype(np.int64)
    n_a = 2**layer.shape.input_bits - 1
    added: NDArray[np.int64] = -n_a * (missing @ tap_sums.T)
    return added
