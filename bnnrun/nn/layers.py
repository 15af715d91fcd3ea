"""Products with weights: binary (Alg. 1) and real, fully connected and convolutional."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import nn

from bnnrun.architecture import Layer
from bnnrun.gemm.lookup import HAS_LOOKUP
from bnnrun.nn import winograd
from bnnrun.nn.binarize import sign, sign_into, stochastic_sign
from bnnrun.nn.bits import PackedFilters, PackedWeights
from bnnrun.nn.cuda import Passes
from bnnrun.nn.kernels.packing import BLOCK
from bnnrun.nn.memory import channels_innermost, empty_like
from bnnrun.nn.tensor_cores import TensorCoreProduct


class Product(nn.Module):
    """s = a · Wᵀ, or the convolution of `a` with W: 3x3, stride 1, zeros around the image.

    No bias: the batch normalization that follows would subtract it again.

    Shapes:
        weight: (N, K) float; (N, C, 3, 3) of a convolution
        a:      (B, K) float; (B, C, H, W)
        returns (B, N) float; (B, N, H, W)

    Attributes:
        fast:   convolutions of real numbers are by Winograd's filtering (nn/winograd.py), where the
                shape allows it, else torch's own; passes over activations are fused (nn/hidden.py)
        passes: those of a GPU where its training is fast
    """

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.layer, self.is_conv = layer, layer.is_conv
        self.fast = False
        self.passes: Passes | None = None
        shape = (layer.inputs, layer.kernel, layer.kernel) if layer.is_conv else (layer.inputs,)
        self.weight = nn.Parameter(torch.empty(layer.outputs, *shape))

    def multiply(self, a: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        """The product with given weights."""
        return F.conv2d(a, w, padding=1) if self.is_conv else F.linear(a.flatten(1), w)

    def by_filtering(self, a: torch.Tensor) -> bool:
        """Whether this is a convolution that Winograd's filtering may do with `a`."""
        layer = self.layer
        return (
            self.fast
            and self.is_conv
            and a.is_cpu
            and a.dtype == torch.float32
            and winograd.fits(layer.size, layer.inputs, layer.outputs)
        )

    def multiply_fast(self, a: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        """The product of real numbers, with whatever `fast` allows."""
        if not self.by_filtering(a):
            return self.multiply(a, w)
        s: torch.Tensor = _FilteredConv.apply(a, w)
        return s


class BinaryProduct(Product):
    """Product with binary weights: s = a · Sign(W)ᵀ  (Alg. 1).

    `weight` stays real-valued, in [-1, 1] and from U(-1, 1): it collects the small steps of the
    optimizer, which clips it. A product only ever sees its sign. `a` is ±1 (times 1/(1 - p), or 0,
    behind dropout), so hidden sums are whole numbers in [-K, K].

    Backward, g_W = g_{W^b}, unchanged (Alg. 1). No gate on weights: the clip keeps |W| <= 1, where
    an inclusive gate is open; an exclusive one would freeze each weight that stands at ±1.

    Attributes:
        fast:     sums of ±1 are counted from bits, gradients take fewer products (nn/bits.py,
                  nn/winograd.py), where the processor and the shape allow it; else float32
                  products throughout
        passes:   with those of a GPU, products are by TF32, and the update leaves the signs
        deferred: a fully connected layer leaves g_W as its factors (`Factors`), not as `grad`
    """

    binary = True

    def __init__(self, layer: Layer, stochastic: bool) -> None:
        super().__init__(layer)
        self.stochastic = stochastic
        nn.init.uniform_(self.weight, -1, 1)
        self.weight.data = channels_innermost(self.weight.data)
        # W^b and g_W of every step are written to the same memory: new memory of that size costs
        # as much as the pass that fills it.
        self.signs: torch.Tensor | None = None
        self.gradient: torch.Tensor | None = None
        self.packed: PackedWeights | PackedFilters | None = None
        self.packed_version = self.signs_version = -1
        self.deferred = False

    def forward(self, a: torch.Tensor, unit: float = 0.0) -> torch.Tensor:
        """The sums; `unit` says that `a` is ±1 and 0 times it; 0 that `a` is real numbers."""
        if self.counts(a, whole=unit != 0):
            kind = _CountedConv if self.is_conv else _CountedLinear
            counted: torch.Tensor = kind.apply(a, self.weight, self, unit)
            return counted
        w = self.binarize()
        if self.passes is not None:
            fast: torch.Tensor = TensorCoreProduct.apply(
                a if self.is_conv else a.flatten(1), self.weight, w, unit
            )
            return fast
        if self.is_conv:
            s: torch.Tensor = _StraightThrough.apply(self.weight, w)
            return self.multiply_fast(a, s)
        result: torch.Tensor = _BinaryLinear.apply(a.flatten(1), self.weight, self)
        return result

    def counts(self, a: torch.Tensor, whole: bool) -> bool:
        """Whether `a` goes through the layer's bits."""
        if not self.fast or self.passes or not a.is_cpu or a.dtype != torch.float32:
            return False
        return whole and self.by_filtering(a) if self.is_conv else HAS_LOOKUP

    def pack(self) -> PackedWeights | PackedFilters:
        """The bits of this step's W^b, drawn anew where they are drawn."""
        if self.packed is None:
            shape = self.layer.outputs, self.layer.inputs
            self.packed = PackedFilters(self.layer) if self.is_conv else PackedWeights(*shape)
        # An update that packed the signs while it made them has marked the weights it left.
        if self.stochastic or self.packed_version != self.weight._version:
            self.packed.pack(self.binarize() if self.stochastic else self.weight)
        self.packed_version = -1
        return self.packed

    def mark_packed(self) -> None:
        """Say that `packed` holds the signs of the weights as they are now."""
        self.packed_version = self.weight._version

    @torch.no_grad()
    def count(self, a: torch.Tensor) -> torch.Tensor:
        """The sums of ±1 in evaluation, where `counts`; the weights' own signs, never drawn."""
        packed = self.pack()
        self.mark_packed()
        if self.is_conv:
            return packed.sums(a.contiguous(memory_format=torch.channels_last))
        return packed.sums(a.flatten(1).contiguous())

    def taken_signs(self) -> torch.Tensor | None:
        """Memory that an update may leave the new signs in, and then say so by `mark_signs`."""
        return None if self.stochastic else self.signs

    def mark_signs(self) -> None:
        """Say that `signs` are those of the weights as they are now."""
        self.signs_version = self.weight._version

    def binarize(self) -> torch.Tensor:
        """W^b in float32."""
        w = self.weight.detach()
        if self.signs is not None and self.signs_version == self.weight._version:
            return self.signs
        if self.signs is None or self.signs.device != w.device:
            self.signs = torch.empty_like(w)
        if self.stochastic:
            return self.signs.copy_(stochastic_sign(w))
        return sign_into(w, self.signs)

    def room(self) -> torch.Tensor:
        """The layer's own memory for g_W."""
        if self.gradient is None or self.gradient.device != self.weight.device:
            self.gradient = torch.empty_like(self.weight)
        return self.gradient

    def evaluate(self, a: torch.Tensor, whole: bool) -> torch.Tensor:
        """The sums, without a graph; exact where `a` is of whole numbers and they stay below 2^24.

        cuDNN may pick an algorithm that transforms its operands and leaves whole sums off by
        rounding, far below 1/2: that is taken back.
        """
        s = self.multiply(a, sign(self.weight).to(a.dtype))
        return s.round() if whole and s.is_cuda else s


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


PART = 2**19  # weights whose gradients are made at once: what stays in the cache


@dataclass(frozen=True)
class Factors:
    """The gradient of a fully connected layer as what it is a product of: g_W = g_sᵀ · a.

    A minibatch is small beside the weights, so that reading g_W from memory costs more than
    multiplying: what uses it can make it part by part.

    Attributes:
        g_s:   (B, N) float
        a:     (B, K) float
        layer: whose gradient it is
        unit:  `a` is ±1 and 0 times it; 0: real numbers
    """

    g_s: torch.Tensor
    a: torch.Tensor
    layer: "BinaryProduct"
    unit: float = 0.0

    def rows(self, part: slice, out: torch.Tensor) -> torch.Tensor:
        """The rows of g_W that `part` selects, written to the first of `out`."""
        g_s = self.g_s[:, part]
        return torch.mm(g_s.t(), self.a, out=out[: g_s.shape[1]])


def parts(w: torch.Tensor) -> Iterator[slice]:
    """Rows of a matrix in parts of some PART elements, whole blocks of packed rows."""
    step = max(1, PART // w.shape[1] // BLOCK) * BLOCK
    return (slice(start, start + step) for start in range(0, len(w), step))


def take_factors(weight: torch.Tensor) -> Factors | None:
    """The factors of a weight's gradient where it was deferred; they are handed out once."""
    factors: Factors | None = getattr(weight, "factors", None)
    weight.factors = None  # type: ignore[attr-defined]
    return factors


def _leave_gradient(
    layer: BinaryProduct, g_s: torch.Tensor, a: torch.Tensor, unit: float = 0.0
) -> None:
    """g_W = g_sᵀ · a straight to `weight.grad`, in the layer's own memory, or as its factors."""
    if layer.deferred:
        layer.weight.factors = Factors(g_s, a, layer, unit)  # type: ignore[attr-defined]
        return
    layer.weight.factors = None  # type: ignore[attr-defined]
    layer.weight.grad = torch.mm(g_s.t(), a, out=layer.room())


class _BinaryLinear(torch.autograd.Function):
    """s = a · W^bᵀ; g_a = g_s · W^b; g_W = g_sᵀ · a (Alg. 1), written and not added."""

    @staticmethod
    def forward(a: torch.Tensor, weight: torch.Tensor, layer: BinaryProduct) -> torch.Tensor:
        assert layer.signs is not None
        return a @ layer.signs.t()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        a, _, ctx.layer = inputs
        ctx.save_for_backward(a)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor | None, None, None]:
        (a,) = ctx.saved_tensors
        layer, g_s = ctx.layer, grad_outputs[0]
        _leave_gradient(layer, g_s, a)
        return (g_s @ layer.signs if ctx.needs_input_grad[0] else None), None, None


class _CountedLinear(torch.autograd.Function):
    """The same from bits: s exact where `a` has a unit, g_a by tables."""

    @staticmethod
    def forward(
        a: torch.Tensor, weight: torch.Tensor, layer: BinaryProduct, unit: float
    ) -> torch.Tensor:
        packed = cast(PackedWeights, layer.pack())
        flat = a.flatten(1).contiguous()
        return packed.sums(flat, unit) if unit else packed.real_sums(flat)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        a, _, ctx.layer, ctx.unit = inputs
        ctx.save_for_backward(a)

    @staticmethod
    def backward(
        ctx: Any, *grad_outputs: torch.Tensor
    ) -> tuple[torch.Tensor | None, None, None, None]:
        (a,) = ctx.saved_tensors
        layer, g_s = ctx.layer, grad_outputs[0]
        _leave_gradient(layer, g_s, a.flatten(1), ctx.unit)
        if not ctx.needs_input_grad[0]:
            return None, None, None, None
        return layer.packed.through(g_s).view(a.shape), None, None, None


class _CountedConv(torch.autograd.Function):
    """s = conv(a, W^b), counted; g_a and g_W by Winograd's filtering, from the layer's bits."""

    @staticmethod
    def forward(
        a: torch.Tensor, weight: torch.Tensor, layer: BinaryProduct, unit: float
    ) -> torch.Tensor:
        packed = cast(PackedFilters, layer.pack())
        return packed.sums(a.contiguous(memory_format=torch.channels_last))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        _, _, ctx.layer, _ = inputs
        ctx.taken = ctx.layer.packed.taken

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        layer, filters = ctx.layer, ctx.layer.packed
        if filters.taken != ctx.taken:
            raise RuntimeError(
                f"{layer.layer.name}: its bits are those of a later forward pass; go back through "
                "a fast convolution before it is used again"
            )
        g_s = grad_outputs[0].contiguous(memory_format=torch.channels_last)
        g_w = layer.weight.grad = layer.room()
        of_input = ctx.needs_input_grad[0]
        of = winograd.Counted(filters)
        return winograd.gradients(g_s, of, g_w, WORKSPACE, of_input=of_input), None, None, None


class _FilteredConv(torch.autograd.Function):
    """s = conv(a, w) of real numbers, g_a and g_W, all by Winograd's filtering."""

    @staticmethod
    def forward(a: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return winograd.convolve(winograd.Real(*map(channels_innermost, (a, w))), WORKSPACE)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        g_s, a, w = map(channels_innermost, (*grad_outputs, *ctx.saved_tensors))
        g_w, of = empty_like(w), winograd.Real(a, w)
        of_input = ctx.needs_input_grad[0]
        return winograd.gradients(g_s, of, g_w, WORKSPACE, of_input=of_input), g_w


WORKSPACE = winograd.Workspace()


class RealProduct(Product):
    """Product with real weights, Glorot-uniform as is Lasagne's default."""

    binary = False

    def __init__(self, layer: Layer) -> None:
        super().__init__(layer)
        nn.init.xavier_uniform_(self.weight)
        self.weight.data = channels_innermost(self.weight.data)

    def forward(self, a: torch.Tensor) -> torch.Tensor:
        return self.multiply_fast(a, self.weight)

    def evaluate(self, a: torch.Tensor, whole: bool) -> torch.Tensor:
        """The same without a graph, in the precision of `a`; sums of real weights are not whole."""
        return self.multiply_fast(a, self.weight.to(a.dtype))
