"""Passes of a training step on a GPU, each one over memory: Adam with c, clip and Sign; batch norm
and Sign, both ways.

Kernels are kernels/adam.cu and kernels/norm_sign.cu. Nothing here waits for the device, and all
that changes from step to step lies on it, so that a step can be recorded as a graph.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from bnnrun.gemm.cuda_device import Device, Launch
from bnnrun.nn.hidden import How
from bnnrun.nn.memory import channels_innermost, has_no_gaps

ROWS = 512  # of norm_sign.cu, whose sums are one summand
SOME = 128  # rows that a block of it takes at a time
GRID_Y = 65_535  # CUDA's most blocks in the second direction


@dataclass(frozen=True)
class AdamNumbers:
    """What an update takes beside tensors; `c` scales the step of a binary layer."""

    beta1: float
    beta2: float
    eps: float
    c: float
    clip: bool


class Passes:
    """The kernels of a training step, on one device. Tensors are float32 and lie on it."""

    def __init__(self, device: Device) -> None:
        self.device = device

    def __deepcopy__(self, memo: object) -> "Passes":
        """The same: a network that is copied stays on its device."""
        return self

    def adam(
        self,
        of: tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor],
        signs: torch.Tensor | None,
        rate: torch.Tensor,
        numbers: AdamNumbers,
    ) -> None:
        """Adam's update of w, m and v from g, by `optim.Adam`.

        Args:
            of:    w, g, m, v, alike in shape and strides, without gaps
            signs: takes Sign(w) of the new w; None: nobody asks for it
            rate:  (1,) lr · sqrt(1 - b2^t) / (1 - b1^t)
        """
        w, *others = of
        for t in (*others, *([] if signs is None else [signs])):
            assert has_no_gaps(t), "taken element by element"
            assert t.stride() == w.stride(), "all in one order"
        b1, b2 = numbers.beta1, numbers.beta2
        told = map(np.float32, (b1, 1 - b1, b2, 1 - b2, numbers.c, numbers.eps))
        flags = {"CLIP": numbers.clip, "SIGNS": signs is not None}
        self._launch(
            "adam",
            tuple((name, None) for name, wanted in flags.items() if wanted),
            (-(-w.numel() // 1024), 1),
            (*of, signs, rate, *told, np.int64(w.numel())),
        )

    def norm(
        self, p: torch.Tensor, gamma: torch.Tensor, beta: torch.Tensor, eps: float
    ) -> torch.Tensor:
        """(4, N): the batch's mean, gamma · inv, beta, inv; of p (B, N) or (B, N, H, W) channels
        last.
        """
        r, n = _size(p)
        parts = self._parts(p)
        line = p.new_empty(4, n)
        self._pass("MOMENTS", _by_parts(r, n), (p, parts, *_sizes(r, n)))
        told = parts, gamma, beta, np.float32(eps), line
        self._pass("LINE", _by_columns(n), (*told, *_sizes(r, n)))
        return line

    def sign(self, p: torch.Tensor, line: torch.Tensor) -> torch.Tensor:
        """Sign of the normalized p, like p in memory."""
        r, n = _size(p)
        a = torch.empty_like(p)
        self._pass("SIGN", _by_rows(r, n), (p, line, a, *_sizes(r, n)))
        return a

    def gradients(
        self,
        g: torch.Tensor,
        p: torch.Tensor,
        line: torch.Tensor,
        gamma: torch.Tensor,
        *,
        gated: bool,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(g_p, g_gamma, g_beta) of `g`, the gradient of what `sign` gave; like p in memory."""
        r, n = _size(p)
        limit = np.float32(1 if gated else np.inf)
        parts, factors = self._parts(p), p.new_empty(5, n)
        g_p = torch.empty_like(p)
        self._pass("GRADIENT_SUMS", _by_parts(r, n), (p, g, line, limit, parts, *_sizes(r, n)))
        self._pass("FACTORS", _by_columns(n), (parts, gamma, line, factors, *_sizes(r, n)))
        told = p, g, factors, limit, line, g_p
        self._pass("GRADIENT", _by_rows(r, n), (*told, *_sizes(r, n)))
        return g_p, factors[3], factors[4]

    def _parts(self, p: torch.Tensor) -> torch.Tensor:
        r, n = _size(p)
        return p.new_empty(-(-r // ROWS), 2, n, dtype=torch.float64)

    def _pass(self, name: str, grid: tuple[int, int], arguments: tuple[Any, ...]) -> None:
        self._launch("norm_sign", (("PASS", name),), grid, arguments)

    def _launch(
        self,
        kernel: str,
        defines: tuple[tuple[str, str | None], ...],
        grid: tuple[int, int],
        arguments: tuple[Any, ...],
    ) -> None:
        given = tuple(x.detach() if isinstance(x, torch.Tensor) else x for x in arguments)
        self.device.launch(Launch(kernel, defines, grid, 256, given))


class NormSign(torch.autograd.Function):
    """(Sign of batch norm of sums that are pooled already, `Passes.norm` of them)."""

    @staticmethod
    def forward(
        p: torch.Tensor,
        gamma: torch.Tensor,
        beta: torch.Tensor,
        how: How,
        passes: Passes,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        line = passes.norm(p, gamma, beta, how.eps)
        return passes.sign(p, line), line

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
        p, gamma, _, ctx.how, ctx.passes = inputs
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(p, gamma, output[1])

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        p, gamma, line = ctx.saved_tensors
        g = channels_innermost(grad_outputs[0])
        return *ctx.passes.gradients(g, p, line, gamma, gated=ctx.how.gated), None, None


def _size(p: torch.Tensor) -> tuple[int, int]:
    """(R, N): rows of channels."""
    n = p.shape[1]
    return p.numel() // n, n


def _sizes(r: int, n: int) -> tuple[np.int64, np.int32]:
    return np.int64(r), np.int32(n)


def _by_parts(r: int, n: int) -> tuple[int, int]:
    return -(-n // 32), -(-r // ROWS)


def _by_columns(n: int) -> tuple[int, int]:
    return -(-n // 256), 1


def _by_rows(r: int, n: int) -> tuple[int, int]:
    return -(-n // 32), min(GRID_Y, -(-r // SOME))
