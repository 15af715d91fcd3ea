"""Fused CUDA kernels of a training step: Adam with c, clip and Sign; batch norm and Sign, forward
and backward.

The kernels are kernels/adam.cu and kernels/norm_sign.cu. Nothing here waits for the device, and all
that changes from step to step lies on it, so that a step can be captured as a graph.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from bnnrun.engine.memory import channels_innermost, has_no_gaps
from bnnrun.gemm.cuda_device import Device, Launch

ROWS = 512  # of a partial sum, as norm_sign.cu has it
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


class FusedKernels:
    """The kernels, on one device. Tensors are float32 and lie on it."""

    def __init__(self, device: Device) -> None:
        self.device = device

    def adam(
        self,
        streams: tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor],
        signs: torch.Tensor | None,
        rate: torch.Tensor,
        numbers: AdamNumbers,
    ) -> None:
        """Adam's update of w, m and v from g, by `optim.Adam`.

        Args:
            streams: w, g, m, v, alike in shape and strides, without gaps
            signs: takes Sign(w) of the new w; None: nobody asks for it
            rate:  (1,) lr · sqrt(1 - b2^t) / (1 - b1^t)
        """
        w, *others = streams
        for t in (*others, *([] if signs is None else [signs])):
            assert has_no_gaps(t), "taken element by element"
            assert t.stride() == w.stride(), "all in one order"
        b1, b2 = numbers.beta1, numbers.beta2
        constants = map(np.float32, (b1, 1 - b1, b2, 1 - b2, numbers.c, numbers.eps))
        flags = {"CLIP": numbers.clip, "SIGNS": signs is not None}
        self._launch(
            "adam",
            tuple((name, None) for name, wanted in flags.items() if wanted),
            (-(-w.numel() // 1024), 1),
            (*streams, signs, rate, *constants, np.int64(w.numel())),
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
        self._launch_norm("MOMENTS", _by_parts(r, n), (p, parts, *_sizes(r, n)))
        arguments = parts, gamma, beta, np.float32(eps), line
        self._launch_norm("LINE", _by_columns(n), (*arguments, *_sizes(r, n)))
        return line

    def sign(self, p: torch.Tensor, line: torch.Tensor) -> torch.Tensor:
        """Sign of the normalized p, like p in memory."""
        r, n = _size(p)
        a = torch.empty_like(p)
        self._launch_norm("SIGN", _by_rows(r, n), (p, line, a, *_sizes(r, n)))
        return a

    def gradients(
        self,
        g: torch.Tensor,
        p: torch.Tensor,
        line: torch.Tensor,
        gamma: torch.Tensor,
        limit: float,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(g_p, g_gamma, g_beta) of `g`, the gradient of what `sign` gave; like p in memory.

        Args:
            limit: the largest |y| that lets a gradient through
        """
        r, n = _size(p)
        parts, factors, most = self._parts(p), p.new_empty(5, n), np.float32(limit)
        g_p = torch.empty_like(p)
        self._launch_norm(
            "GRADIENT_SUMS", _by_parts(r, n), (p, g, line, most, parts, *_sizes(r, n))
        )
        self._launch_norm("FACTORS", _by_columns(n), (parts, gamma, line, factors, *_sizes(r, n)))
        arguments = p, g, factors, most, line, g_p
        self._launch_norm("GRADIENT", _by_rows(r, n), (*arguments, *_sizes(r, n)))
        return g_p, factors[3], factors[4]

    def _parts(self, p: torch.Tensor) -> torch.Tensor:
        r, n = _size(p)
        return p.new_empty(-(-r // ROWS), 2, n, dtype=torch.float64)

    def _launch_norm(self, name: str, grid: tuple[int, int], arguments: tuple[Any, ...]) -> None:
        self._launch("norm_sign", (("PASS", name),), grid, arguments)

    def _launch(
        self,
        kernel: str,
        defines: tuple[tuple[str, str | None], ...],
        grid: tuple[int, int],
        arguments: tuple[Any, ...],
    ) -> None:
        detached = tuple(x.detach() if isinstance(x, torch.Tensor) else x for x in arguments)
        self.device.launch(Launch(kernel, defines, grid, 256, detached))


class NormSign(torch.autograd.Function):
    """(Sign of batch norm of sums that are pooled already, `FusedKernels.norm` of them)."""

    @staticmethod
    def forward(
        p: torch.Tensor,
        gamma: torch.Tensor,
        beta: torch.Tensor,
        eps: float,
        limit: float,
        kernels: FusedKernels,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        line = kernels.norm(p, gamma, beta, eps)
        return kernels.sign(p, line), line

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
        p, gamma, _, _, ctx.limit, ctx.kernels = inputs
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(p, gamma, output[1])

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        p, gamma, line = ctx.saved_tensors
        g = channels_innermost(grad_outputs[0])
        return *ctx.kernels.gradients(g, p, line, gamma, ctx.limit), None, None, None


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
