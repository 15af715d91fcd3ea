"""Products with weights: binary (Alg. 1) and real, fully connected and convolutional."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from bnnrun import machine
from bnnrun.architecture import Layer
from bnnrun.nn.binarize import sign, sign_into, stochastic_sign
from bnnrun.nn.passes import dropout_pass, sign_pass_int8


class Product(nn.Module):
    """s = a · Wᵀ, or the convolution of `a` with W: 3x3, stride 1, zeros around the image.

    No bias: the batch normalization that follows would subtract it again.

    Shapes:
        weight: (N, K) float; (N, C, 3, 3) of a convolution
        a:      (B, K) float; (B, C, H, W)
        returns (B, N) float; (B, N, H, W)
    """

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.is_conv = layer.is_conv
        shape = (layer.inputs, layer.kernel, layer.kernel) if layer.is_conv else (layer.inputs,)
        self.weight = nn.Parameter(torch.empty(layer.outputs, *shape))

    def multiply(self, a: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        """The product with given weights."""
        return F.conv2d(a, w, padding=1) if self.is_conv else F.linear(a.flatten(1), w)


class BinaryProduct(Product):
    """Product with binary weights: s = a · Sign(W)ᵀ  (Alg. 1).

    `weight` stays real-valued, in [-1, 1] and from U(-1, 1): it collects the small steps of the
    optimizer, which clips it. A product only ever sees its sign. `a` is ±1 (times 1/(1 - p), or 0,
    behind dropout), so hidden sums are whole numbers in [-K, K].

    Backward, g_W = g_{W^b}, unchanged (Alg. 1). No gate on weights: the clip keeps |W| <= 1, where
    an inclusive gate is open; an exclusive one would freeze each weight that stands at ±1.
    """

    binary = True
    signs: torch.Tensor

    def __init__(self, layer: Layer, stochastic: bool) -> None:
        super().__init__(layer)
        self.stochastic = stochastic
        nn.init.uniform_(self.weight, -1, 1)
        # W^b and g_W of every step are written to the same memory: new memory of that size costs
        # as much as the pass that fills it.
        self.register_buffer("signs", torch.empty_like(self.weight), persistent=False)
        self.bytes: torch.Tensor | None = None
        self.gradient: torch.Tensor | None = None

    def forward(self, a: torch.Tensor, whole: bool = False) -> torch.Tensor:
        """The sums; `whole` says that every element of `a` is one number's product with ±1 or 0."""
        w = self.weight.detach()
        if self.stochastic:
            self.signs.copy_(stochastic_sign(w))
        elif whole and not self.is_conv and has_fast_bytes(w):
            if self.bytes is None:
                self.bytes = torch.empty_like(w, dtype=torch.int8)
            flat = [t.view(-1).numpy() for t in (w, self.signs, self.bytes)]
            sign_pass_int8(flat[0], flat[1], flat[2])
        else:
            sign_into(w, self.signs)
        if self.is_conv:
            s: torch.Tensor = _StraightThrough.apply(self.weight, self.signs)
            return self.multiply(a, s)
        result: torch.Tensor = _BinaryLinear.apply(a.flatten(1), self.weight, self)
        return result

    def evaluate(self, a: torch.Tensor, whole: bool) -> torch.Tensor:
        """The sums, without a graph; exact where `a` is of whole numbers and they stay below 2^24.

        cuDNN may pick an algorithm that transforms its operands and leaves whole sums off by
        rounding, far below 1/2: that is taken back.
        """
        s = self.multiply(a, sign(self.weight).to(a.dtype))
        return s.round() if whole and s.is_cuda else s


def has_fast_bytes(w: torch.Tensor) -> bool:
    """Whether the processor multiplies bytes faster than floats, by an instruction for it."""
    return w.is_cpu and "avx512_vnni" in machine.cpu()["features"]


class _StraightThrough(torch.autograd.Function):
    """W^b forward, g_W = g_{W^b} backward."""

    @staticmethod
    def forward(w: torch.Tensor, signs: torch.Tensor) -> torch.Tensor:
        return signs.view_as(signs)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor, None]:
        return grad_outputs[0], None


class _BinaryLinear(torch.autograd.Function):
    """s = a · W^bᵀ; g_a = g_s · W^b; g_W = g_sᵀ · a (Alg. 1).

    g_W goes straight to `weight.grad`, in the layer's own memory; it is written, not added.
    """

    @staticmethod
    def forward(a: torch.Tensor, weight: torch.Tensor, layer: BinaryProduct) -> torch.Tensor:
        if layer.bytes is None:
            return a @ layer.signs.t()
        # Bytes and 32-bit sums: the same whole numbers, at several times the speed.
        s = torch._int_mm(a.sign().to(torch.int8), layer.bytes.t())
        return s.float().mul_(a.abs().amax())

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        a, _, ctx.layer = inputs
        ctx.save_for_backward(a)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor | None, None, None]:
        (a,) = ctx.saved_tensors
        layer, g_s = ctx.layer, grad_outputs[0]
        if layer.gradient is None:
            layer.gradient = torch.empty_like(layer.weight)
        layer.weight.grad = torch.mm(g_s.t(), a, out=layer.gradient)
        return (g_s @ layer.signs if ctx.needs_input_grad[0] else None), None, None


class RealProduct(Product):
    """Product with real weights, Glorot-uniform as is Lasagne's default."""

    binary = False

    def __init__(self, layer: Layer) -> None:
        super().__init__(layer)
        nn.init.xavier_uniform_(self.weight)

    def forward(self, a: torch.Tensor) -> torch.Tensor:
        return self.multiply(a, self.weight)

    def evaluate(self, a: torch.Tensor, whole: bool) -> torch.Tensor:
        """The same without a graph, in the precision of `a`; sums of real weights are not whole."""
        return self.multiply(a, self.weight.to(a.dtype))


class Dropout(torch.autograd.Function):
    """a / (1 - share) where kept, else 0, forward; the same mask and scale backward.

    The generator is seeded by one number drawn from torch's own, which a checkpoint holds.
    """

    @staticmethod
    def forward(a: torch.Tensor, share: float) -> tuple[torch.Tensor, torch.Tensor]:
        out, mask = torch.empty_like(a), torch.empty_like(a, dtype=torch.bool)
        seed = int(torch.randint(2**62, ()).item())
        flat = [t.view(-1).numpy() for t in (a.detach(), out, mask)]
        dropout_pass(flat[0], flat[1], flat[2], share, seed)
        return out, mask

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
        ctx.scale = 1 / (1 - inputs[1])
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(output[1])

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor, None]:
        (mask,) = ctx.saved_tensors
        return grad_outputs[0] * mask * ctx.scale, None


def dropout(a: torch.Tensor, share: float) -> torch.Tensor:
    """Inverted dropout in training."""
    if not a.is_cpu:
        return F.dropout(a, share)
    kept: torch.Tensor = Dropout.apply(a.contiguous(), share)[0]
    return kept
