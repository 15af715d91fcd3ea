"""Products with weights: binary (Alg. 1) and real, fully connected and convolutional."""

from collections.abc import Iterator
from dataclasses import dataclass
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

    While `deferred`, a fully connected layer leaves g_W as its factors (`Factors`), not as `grad`.

    Backward, g_W = g_{W^b}, unchanged (Alg. 1). No gate on weights: the clip keeps |W| <= 1, where
    an inclusive gate is open; an exclusive one would freeze each weight that stands at ±1.
    """

    binary = True

    def __init__(self, layer: Layer, stochastic: bool) -> None:
        super().__init__(layer)
        self.stochastic = stochastic
        nn.init.uniform_(self.weight, -1, 1)
        # W^b and g_W of every step are written to the same memory: new memory of that size costs
        # as much as the pass that fills it.
        self.signs: torch.Tensor | None = None
        self.gradient: torch.Tensor | None = None
        self.deferred = False

    def forward(self, a: torch.Tensor, whole: bool = False) -> torch.Tensor:
        """The sums; `whole` says that every element of `a` is one number's product with ±1 or 0."""
        w = self.weight.detach()
        in_bytes = whole and not self.is_conv and not self.stochastic and has_fast_bytes(w)
        kind = torch.int8 if in_bytes else w.dtype
        if self.signs is None or self.signs.dtype != kind or self.signs.device != w.device:
            self.signs = torch.empty_like(w, dtype=kind)
        if in_bytes:
            sign_pass_int8(w.view(-1).numpy(), self.signs.view(-1).numpy())
        elif self.stochastic:
            self.signs.copy_(stochastic_sign(w))
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


PART = 2**19  # weights that become floats, or gradients, at once: what stays in the cache


@dataclass(frozen=True)
class Factors:
    """The gradient of a fully connected layer as what it is a product of: g_W = g_sᵀ · a.

    A minibatch is small beside the weights, so that reading g_W from memory costs more than
    multiplying: what uses it can make it part by part.

    Shapes:
        g_s: (B, N) float; a: (B, K) float
    """

    g_s: torch.Tensor
    a: torch.Tensor

    def rows(self, part: slice, out: torch.Tensor) -> torch.Tensor:
        """The rows of g_W that `part` selects, written to the first of `out`."""
        g_s = self.g_s[:, part]
        return torch.mm(g_s.t(), self.a, out=out[: g_s.shape[1]])


def parts(w: torch.Tensor) -> Iterator[slice]:
    """Rows of a matrix in parts of PART elements or fewer, one row at least."""
    step = max(1, PART // w.shape[1])
    return (slice(start, start + step) for start in range(0, len(w), step))


def take_factors(weight: torch.Tensor) -> Factors | None:
    """The factors of a weight's gradient where it was deferred; they are handed out once."""
    factors: Factors | None = getattr(weight, "factors", None)
    weight.factors = None  # type: ignore[attr-defined]
    return factors


class _BinaryLinear(torch.autograd.Function):
    """s = a · W^bᵀ; g_a = g_s · W^b; g_W = g_sᵀ · a (Alg. 1).

    g_W goes straight to `weight.grad`, in the layer's own memory; it is written, not added.
    """

    @staticmethod
    def forward(a: torch.Tensor, weight: torch.Tensor, layer: BinaryProduct) -> torch.Tensor:
        assert layer.signs is not None
        if layer.signs.dtype != torch.int8:
            return a @ layer.signs.t()
        # Bytes and 32-bit sums: the same whole numbers, at several times the speed.
        s = torch._int_mm(a.sign().to(torch.int8), layer.signs.t())
        return s.float().mul_(a.abs().amax())

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        a, _, ctx.layer = inputs
        ctx.save_for_backward(a)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor | None, None, None]:
        (a,) = ctx.saved_tensors
        layer, g_s = ctx.layer, grad_outputs[0]
        if layer.deferred:
            layer.weight.factors = Factors(g_s, a)
        else:
            if layer.gradient is None:
                layer.gradient = torch.empty_like(layer.weight)
            layer.weight.grad = torch.mm(g_s.t(), a, out=layer.gradient)
        return (_through(g_s, layer.signs) if ctx.needs_input_grad[0] else None), None, None


def _through(g_s: torch.Tensor, signs: torch.Tensor) -> torch.Tensor:
    """g_a = g_s · W^b; signs in bytes become floats part by part, in the cache."""
    if signs.dtype == g_s.dtype:
        return g_s @ signs
    g_a = g_s.new_zeros(len(g_s), signs.shape[1])
    floats: torch.Tensor | None = None
    for part in parts(signs):
        some = signs[part]
        if floats is None:
            floats = torch.empty_like(some, dtype=g_s.dtype)
        g_a.addmm_(g_s[:, part], floats[: len(some)].copy_(some))
    return g_a


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
