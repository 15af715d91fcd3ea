"""Products of training on the processor, with their gradients (Alg. 1, backward).

g_W = g_{W^b}: the gradient of W^b is stored as that of the latent weight.
"""

from typing import Any, cast

import torch

from bnnrun.engine.cpu import winograd
from bnnrun.engine.cpu.packed import PackedFilters, PackedWeights
from bnnrun.engine.cpu.state import BinaryState
from bnnrun.engine.memory import channels_innermost, empty_like


class BinaryLinear(torch.autograd.Function):
    """s = a · W^bᵀ; g_a = g_s · W^b; g_W = g_sᵀ · a, in float32, from `state.signs`.

    Integers of k bits are summed exactly where they stay below 2^24.
    """

    @staticmethod
    def forward(
        a: torch.Tensor, weight: torch.Tensor, state: BinaryState, deferred: bool
    ) -> torch.Tensor:
        return a @ state.signs.t()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        a, _, ctx.state, ctx.deferred = inputs
        ctx.save_for_backward(a)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (a,), g_s = ctx.saved_tensors, grad_outputs[0]
        ctx.state.leave_gradient(g_s, a, None, deferred=ctx.deferred)
        return (g_s @ ctx.state.signs if ctx.needs_input_grad[0] else None), None, None, None


class PackedLinear(torch.autograd.Function):
    """As `BinaryLinear`, from `state.packed`: s by popcount, or LUT without `scale`; g_a by LUT."""

    @staticmethod
    def forward(
        a: torch.Tensor,
        weight: torch.Tensor,
        state: BinaryState,
        scale: float | None,
        deferred: bool,
    ) -> torch.Tensor:
        packed = cast(PackedWeights, state.packed)
        flat = a.flatten(1).contiguous()
        return packed.lut_product(flat) if scale is None else packed.popcount_product(flat, scale)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        a, _, ctx.state, ctx.scale, ctx.deferred = inputs
        ctx.save_for_backward(a)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (a,), state, g_s = ctx.saved_tensors, ctx.state, grad_outputs[0]
        state.leave_gradient(g_s, a.flatten(1), ctx.scale, deferred=ctx.deferred)
        if not ctx.needs_input_grad[0]:
            return None, None, None, None, None
        return state.packed.backward_product(g_s).view(a.shape), None, None, None, None


class PopcountConv(torch.autograd.Function):
    """s = conv(a, W^b) by popcounts; g_a and g_W by Winograd's filtering.

    Operands of the gradients are read from the bits in `state.packed`; of more bits than one they
    are kept in float32, as the integers 2c - n, the weights in `state.signs`.
    """

    @staticmethod
    def forward(
        a: torch.Tensor,
        weight: torch.Tensor,
        state: BinaryState,
        workspace: winograd.Workspace,
    ) -> torch.Tensor:
        packed = cast(PackedFilters, state.packed)
        return packed.popcount_product(a.contiguous(memory_format=torch.channels_last))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        a, _, ctx.state, ctx.workspace = inputs
        ctx.generation = ctx.state.packed.generation
        if ctx.state.layer.unit != 1:
            ctx.save_for_backward(a)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        state, filters = ctx.state, ctx.state.packed
        if filters.generation != ctx.generation:
            raise RuntimeError(
                f"{state.layer.name}: its bits are those of a later forward pass; go back through "
                "a fast convolution before it is used again"
            )
        g_s = grad_outputs[0].contiguous(memory_format=torch.channels_last)
        g_w = state.weight.grad = state.empty_gradient()
        operands: winograd.Operands = winograd.Packed(filters)
        if state.layer.unit != 1:
            (a,) = ctx.saved_tensors
            operands = winograd.Real(*map(channels_innermost, (a, state.signs)))
        g_a = winograd.gradients(
            g_s, operands, g_w, ctx.workspace, of_input=ctx.needs_input_grad[0]
        )
        if state.n != 1:
            g_w.mul_(state.n)  # that of q, and n_w q was multiplied
        return g_a, None, None, None


class WinogradConv(torch.autograd.Function):
    """s = conv(a, w) of real numbers, g_a and g_w, all by Winograd's filtering."""

    @staticmethod
    def forward(a: torch.Tensor, w: torch.Tensor, workspace: winograd.Workspace) -> torch.Tensor:
        return winograd.convolve(winograd.Real(*map(channels_innermost, (a, w))), workspace)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        a, w, ctx.workspace = inputs
        ctx.save_for_backward(a, w)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        g_s, a, w = map(channels_innermost, (*grad_outputs, *ctx.saved_tensors))
        g_w = empty_like(w)
        g_a = winograd.gradients(
            g_s, winograd.Real(a, w), g_w, ctx.workspace, of_input=ctx.needs_input_grad[0]
        )
        return g_a, g_w, None
