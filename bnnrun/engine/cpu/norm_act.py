"""Pooling, batch norm and Sign or ReLU of a hidden layer, in few fused kernels.

Forward, channels last: p is the maximum of each 2x2 window of s; y = (p - mean) · scale + beta by
the batch's statistics; a = Sign(y), sampled or not, or of k bits 2c - n (nn/quantizers/levels.py),
or max(y, 0). In this order, Lasagne's, p = mean gives exactly y = beta. Backward: the
straight-through estimator, then the gradient of batch norm. It recomputes y from p, which costs
less than reading y from memory.

    g_y = n · g_a · 1[|y| <= 1], n = 1 of one bit; of ReLU g_a · 1[y > 0]
    g_p = gamma · inv · (g_y - mean(g_y) - x · mean(g_y · x)),  x = (p - mean) · inv

Shift-based batch norm (Alg. 3) has inv = AP2(1 / sigma), AP2(gamma) and x = AP2(p - mean) · inv.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from bnnrun.config import Binarizer, Estimator
from bnnrun.engine.cpu.kernels.norm import (
    ROWS_PER_PART,
    activation_kernel,
    evaluation_kernel,
    gradient_kernel,
    gradient_sum_kernel,
    moment_kernel,
    pool_kernel,
    shift_variance_kernel,
    unpool_kernel,
)
from bnnrun.engine.cpu.sampling import sample_into
from bnnrun.engine.memory import channels_innermost, empty, empty_like
from bnnrun.nn.layers import Block
from bnnrun.nn.norm import ShiftBatchNorm, ap2
from bnnrun.nn.quantizers.levels import thresholds
from bnnrun.nn.sampling import Use, layer_key

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

TINY = float(np.finfo(np.float32).tiny)
# Estimators whose gradient is 1 for low <= y <= high, else 0.
ESTIMATORS = {Estimator.ste: (-1.0, 1.0), Estimator.identity: (-np.inf, np.inf)}


class NormAct(NamedTuple):
    """Options of the kernels for a block.

    Attributes:
        eps:  of the batch norm
        pool: 2x2 max pooling before the batch norm
        low, high: the gradient passes where low <= y <= high
        relu: ReLU instead of Sign
        bits: of an activation
        shift: shift-based batch norm
        key: Sign is sampled by the bits of this key (sampling.layer_key); None: it is not
    """

    eps: float
    pool: bool
    low: float
    high: float
    relu: bool = False
    bits: int = 1
    shift: bool = False
    key: torch.Tensor | None = None

    @classmethod
    def of(cls, block: Block, step_key: torch.Tensor) -> "NormAct":
        """The options of a hidden block with ReLU, or with one of ESTIMATORS, in a step."""
        relu = block.activations is Binarizer.none
        low, high = (TINY, np.inf) if relu else ESTIMATORS[block.estimator]
        norm, layer, key = block.norm, block.layer, None
        if block.activations is Binarizer.stochastic:
            key = layer_key(step_key, block.index, Use.activations)
        shift = isinstance(norm, ShiftBatchNorm)
        return cls(norm.eps, layer.pool, low, high, relu, layer.output_bits, shift, key)

    def passing(self) -> Floats:
        """(low, high) as an array."""
        return np.array([self.low, self.high], np.float32)

    def thresholds(self) -> Floats:
        """Those of the levels, (n,)."""
        result: Floats = thresholds(self.bits, torch.float32).numpy()
        return result

    def moments(self, p: torch.Tensor) -> tuple[Doubles, Doubles]:
        """(mean, 1 / deviation) of each channel of the batch."""
        return shift_moments(p, self.eps) if self.shift else moments(_rows(p), self.eps)

    def factors(self, gamma: torch.Tensor, inv: Doubles) -> tuple[Doubles, Doubles]:
        """What gamma and 1 / deviation are multiplied as: themselves, or their AP2."""
        gamma = gamma.detach()
        if not self.shift:
            return gamma.double().numpy(), inv
        return ap2(gamma).double().numpy(), ap2(torch.from_numpy(inv).float()).double().numpy()


class PoolNormActivation(torch.autograd.Function):
    """(a, mean, inv): Sign or ReLU of batch norm of the pooled s; the batch's mean, 1 / deviation.

    Shapes, float32:
        s:           (B, N) or (B, N, H, W), channels last in memory
        gamma, beta: (N,)
        returns      (B, N) or (B, N, H/2, W/2) where pooled; (N,); (N,)
    """

    @staticmethod
    def forward(
        ctx: Any,
        s: torch.Tensor,
        gamma: torch.Tensor,
        beta: torch.Tensor,
        options: NormAct,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        s = channels_innermost(s)
        p, argmax = _pool(s) if options.pool else (s, None)
        mean, inv = options.moments(p)
        scale = np.prod(options.factors(gamma, inv), axis=0)
        affine = np.stack([mean, scale, beta.detach().double().numpy()]).astype(np.float32)
        a = empty_like(p)
        real = options.relu or options.key is not None
        levels = options.thresholds()[: 0 if real else None]
        floor = np.float32(0 if options.relu else -np.inf)
        activation_kernel(_rows(p), affine, floor, levels, _rows(a))
        if options.key is not None:
            sample_into(a, options.key, a)
        ctx.options = options
        ctx.coefficients = mean, inv, affine
        ctx.save_for_backward(p, argmax, gamma)
        of_batch = torch.from_numpy(mean).float(), torch.from_numpy(inv).float()
        ctx.mark_non_differentiable(*of_batch)
        return a, *of_batch

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        p, argmax, gamma = ctx.saved_tensors
        g = grad_outputs[0]
        g = channels_innermost(g)
        mean, inv, affine = ctx.coefficients
        options: NormAct = ctx.options
        passing, n = options.passing(), 2**options.bits - 1
        rows = _rows(g), _rows(p), affine, options.shift
        parts = np.zeros((-(-len(rows[1]) // ROWS_PER_PART), 2, p.shape[1]))
        gradient_sum_kernel(*rows, passing, parts)
        gamma, inv = options.factors(gamma, inv)
        total, products = n * parts.sum(0)
        products = products * inv
        count = p.numel() // p.shape[1]
        k0 = gamma * inv
        k2 = -k0 * inv * products / count
        # The kernel multiplies k2 by p itself, or by AP2(p - mean).
        k1 = -k0 * total / count - (0 if options.shift else k2 * mean)
        g_p = empty_like(p)
        coefficients = np.stack([n * k0, k1, k2]).astype(np.float32)
        gradient_kernel(*rows, coefficients, passing, _rows(g_p))
        g_s = g_p if argmax is None else _unpool(g_p, argmax)
        of_norm = torch.from_numpy(products).float(), torch.from_numpy(total).float()
        return g_s, *of_norm, None


def evaluate_norm_act(
    s: torch.Tensor,
    affine: tuple[Doubles, Doubles, Doubles],
    pool: bool,
    relu: bool = False,
    bits: int = 1,
) -> tuple[torch.Tensor, float]:
    """(a, saturated): a of y = (s - mean) · scale + shift as above, and the share |y| > 1.

    The arithmetic of BatchNorm.evaluate, in float64 and one pass: each operation rounds once.

    Shapes: s (B, N) or (B, N, H, W) float32 or float64; affine: mean, scale, shift, (N,) each
    """
    s = channels_innermost(s)
    p = F.max_pool2d(s, 2) if pool else s
    a = empty_like(p, torch.float32)
    rows = _rows(p)
    levels = thresholds(bits, torch.float64).numpy()
    saturated = np.zeros(-(-len(rows) // ROWS_PER_PART), np.int64)
    evaluation_kernel(rows, np.stack(affine), relu, levels, _rows(a), saturated)
    return a, float(saturated.sum() / p.numel())


def _rows(t: torch.Tensor) -> NDArray[Any]:
    """A view (pixels, channels) of a channels-last tensor."""
    flat = t.detach() if t.dim() == 2 else t.detach().permute(0, 2, 3, 1).reshape(-1, t.shape[1])
    array: NDArray[Any] = flat.numpy()
    return array


def _pool(s: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(p, argmax): the maximum of each 2x2 window, and which of the four has it first."""
    b, n, h, w = s.shape
    p = empty(b, n, h // 2, w // 2, channels_last=True)
    argmax = empty_like(p, torch.uint8)
    pool_kernel(_rows(s), w, _rows(p), _rows(argmax))
    return p, argmax


def _unpool(g: torch.Tensor, argmax: torch.Tensor) -> torch.Tensor:
    b, n, h, w = g.shape
    out = empty(b, n, 2 * h, 2 * w, channels_last=True)
    unpool_kernel(_rows(g), _rows(argmax), 2 * w, _rows(out))
    return out


def moments(p: Floats, eps: float) -> tuple[Doubles, Doubles]:
    """(mean, 1 / sqrt(biased variance + eps)) of each column."""
    parts = np.zeros((-(-len(p) // ROWS_PER_PART), 2, p.shape[1]))
    moment_kernel(p, parts)
    mean, square = parts.sum(0) / len(p)
    return mean, 1 / np.sqrt(np.maximum(square - mean * mean, 0) + eps)


def shift_moments(p: torch.Tensor, eps: float) -> tuple[Doubles, Doubles]:
    """(mean, 1 / sqrt(mean of C · AP2(C) + eps)) of each channel, C = p - mean (Alg. 3).

    The mean is torch's, as in nn/norm.py, so that C and AP2(C), which a rounding could halve, are
    the reference's to the bit.
    """
    mean = p.detach().mean([0, *range(2, p.dim())]).numpy()
    rows = _rows(p)
    parts = np.zeros((-(-len(rows) // ROWS_PER_PART), 1, len(mean)))
    shift_variance_kernel(rows, mean, parts)
    return mean.astype(np.float64), 1 / np.sqrt(parts.sum((0, 1)) / len(rows) + eps)
