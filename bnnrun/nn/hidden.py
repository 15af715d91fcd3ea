"""Pooling, batch norm and Sign or ReLU of a hidden layer, in few passes over memory.

Forward, channels last: p = the largest of each 2x2 sums; y = (p - mean) · scale + beta by the
batch's own statistics; a = Sign(y) or max(y, 0). In this order, Lasagne's, a sum that is the mean
gives y = beta and not what rounding makes of it. Backward, the activation's gate and the explicit
gradient of batch norm: y is made again from p, which costs less than reading it.

    g_y = g_a · 1[|y| <= 1], of ReLU g_a · 1[y > 0]
    g_p = gamma · inv · (g_y - mean(g_y) - x · mean(g_y · x)),  x = (p - mean) · inv
"""

from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from bnnrun.nn.kernels.norm import (
    ROWS,
    activation_pass,
    evaluation_pass,
    gradient_pass,
    gradient_sum_pass,
    moment_pass,
    pool_pass,
    unpool_pass,
)
from bnnrun.nn.memory import channels_innermost, empty, empty_like

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]


class How(NamedTuple):
    """Of batch norm its eps; whether there is a pooling; whether Sign has a gate; ReLU for Sign."""

    eps: float
    pool: bool
    gated: bool
    relu: bool = False

    def gate(self) -> Floats:
        """The smallest and the largest y that lets a gradient through."""
        if self.relu:
            return np.array([np.finfo(np.float32).tiny, np.inf], np.float32)
        return np.array([-1, 1] if self.gated else [-np.inf, np.inf], np.float32)


class PoolNormActivation(torch.autograd.Function):
    """(Sign or ReLU of batch norm of the pooled sums, the batch's mean, its inverse deviation).

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
        how: "How",
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        s = channels_innermost(s)
        p, places = _pool(s) if how.pool else (s, None)
        mean, inv = moments(_rows(p), how.eps)
        scale = gamma.detach().double().numpy() * inv
        line = np.stack([mean, scale, beta.detach().double().numpy()]).astype(np.float32)
        a = empty_like(p)
        activation_pass(_rows(p), line, how.relu, _rows(a))
        ctx.gate = how.gate()
        ctx.numbers = mean, inv, line
        ctx.save_for_backward(p, places, gamma)
        of_batch = torch.from_numpy(mean).float(), torch.from_numpy(inv).float()
        ctx.mark_non_differentiable(*of_batch)
        return a, *of_batch

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        p, places, gamma = ctx.saved_tensors
        g = grad_outputs[0]
        g = channels_innermost(g)
        mean, inv, line = ctx.numbers
        rows = _rows(g), _rows(p), line
        parts = np.zeros((-(-len(rows[1]) // ROWS), 2, p.shape[1]))
        gradient_sum_pass(*rows, ctx.gate, parts)
        total, along = parts.sum(0)
        along = along * inv
        count = p.numel() // p.shape[1]
        k0 = gamma.detach().double().numpy() * inv
        k2 = -k0 * inv * along / count
        numbers = np.stack([k0, -k0 * total / count - k2 * mean, k2]).astype(np.float32)
        g_p = empty_like(p)
        gradient_pass(*rows, numbers, ctx.gate, _rows(g_p))
        g_s = g_p if places is None else _unpool(g_p, places)
        of = torch.from_numpy(along).float(), torch.from_numpy(total).float()
        return g_s, *of, None


def evaluate_hidden(
    s: torch.Tensor, affine: tuple[Doubles, Doubles, Doubles], pool: bool, relu: bool = False
) -> tuple[torch.Tensor, float]:
    """(Sign(y) or max(y, 0) in float32, share of |y| > 1), of y = (s - mean) · scale + shift.

    The arithmetic of evaluation (BatchNorm.evaluate), in float64 and one pass: each operation
    rounds once.

    Shapes: s (B, N) or (B, N, H, W) float32 or float64; affine: mean, scale, shift, (N,) each
    """
    s = channels_innermost(s)
    p = F.max_pool2d(s, 2) if pool else s
    a = empty_like(p)
    rows = _rows(p)
    closed = np.zeros(-(-len(rows) // ROWS), np.int64)
    evaluation_pass(rows, np.stack(affine), relu, _rows(a), closed)
    return a, float(closed.sum() / p.numel())


def _rows(t: torch.Tensor) -> NDArray[Any]:
    """(pixels, channels) of a tensor that lies channels last."""
    flat = t.detach() if t.dim() == 2 else t.detach().permute(0, 2, 3, 1).reshape(-1, t.shape[1])
    found: NDArray[Any] = flat.numpy()
    return found


def _pool(s: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(the largest of each 2x2, which of the four it is, the first of equals)."""
    b, n, h, w = s.shape
    p = empty(b, n, h // 2, w // 2, channels_last=True)
    places = empty_like(p, torch.uint8)
    pool_pass(_rows(s), w, _rows(p), _rows(places))
    return p, places


def _unpool(g: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    b, n, h, w = g.shape
    out = empty(b, n, 2 * h, 2 * w, channels_last=True)
    unpool_pass(_rows(g), _rows(places), 2 * w, _rows(out))
    return out


def moments(p: Floats, eps: float) -> tuple[Doubles, Doubles]:
    """(mean, 1 / sqrt(biased variance + eps)) of each column."""
    parts = np.zeros((-(-len(p) // ROWS), 2, p.shape[1]))
    moment_pass(p, parts)
    mean, square = parts.sum(0) / len(p)
    return mean, 1 / np.sqrt(np.maximum(square - mean * mean, 0) + eps)
