"""State of a layer with binary weights between the passes of a training step."""

from dataclasses import dataclass

import torch

from bnnrun.architecture import Layer
from bnnrun.engine.cpu.packed import PackedFilters, PackedWeights

STALE = -1  # never equals a tensor's version


@dataclass(frozen=True)
class Factors:
    """The gradient of a fully connected layer as the product that it is: g_W = g_sᵀ · a.

    A minibatch is small compared to the weights, so that reading g_W from memory costs more than
    computing it: the fused update computes it part by part.

    Attributes:
        g_s:  (B, N) float32
        a:    (B, K) float32
        scale: `a` is ±1 and 0 times `scale`; None if `a` is real
    """

    g_s: torch.Tensor
    a: torch.Tensor
    scale: float | None

    def rows(self, part: slice, out: torch.Tensor) -> torch.Tensor:
        """Write the rows `part` of g_W to the first rows of `out`, and return them."""
        g_s = self.g_s[:, part]
        return torch.mm(g_s.t(), self.a, out=out[: g_s.shape[1]])


class BinaryState:
    """Packed bits and buffers of one layer.

    Every step writes W^b and g_W to the same buffers: allocating memory of that size costs as much
    as the kernel that fills it.

    Attributes:
        packed:  bits of W^b of the latest forward pass
        signs:   W^b in float32; of more bits the integers 2c - n
        factors: g_W of the latest backward pass, if it was deferred
    """

    def __init__(self, layer: Layer, weight: torch.Tensor) -> None:
        self.layer, self.weight = layer, weight
        self.packed: PackedWeights | PackedFilters | None = None
        self.packed_version = STALE
        self.signs = torch.empty(0)
        self.gradient = torch.empty(0)
        self.n = 2**layer.weight_bits - 1
        self.factors: Factors | None = None

    def pack(self, signs: torch.Tensor | None = None) -> PackedWeights | PackedFilters:
        """Pack W^b: `signs`, sampled ±1 or the numbers 2c - n of more bits, or Sign(W) if None.

        The first call after `mark_packed` does not pack Sign(W) again if W has not changed since.
        """
        if self.packed is None:
            layer = self.layer
            shape = layer.outputs, layer.inputs
            self.packed = PackedFilters(layer) if layer.is_conv else PackedWeights(*shape)
        if signs is not None:
            self.packed.pack(signs)
        elif self.packed_version != self.weight._version:
            self.packed.pack(self.weight)
        self.packed_version = STALE
        return self.packed

    def mark_packed(self) -> None:
        """Record that `packed` holds the signs of the current weights."""
        self.packed_version = self.weight._version

    def empty_signs(self) -> torch.Tensor:
        """The buffer of W^b."""
        if self.signs.shape != self.weight.shape:
            self.signs = torch.empty_like(self.weight, requires_grad=False)
        return self.signs

    def leave_gradient(
        self, g_s: torch.Tensor, a: torch.Tensor, scale: float | None, *, deferred: bool
    ) -> None:
        """Store g_W of a fully connected layer in `weight.grad`, or if `deferred` its factors.

        g_W is that of q = W^b, and n_w q is what was multiplied.

        Shapes: g_s (B, N); a (B, K), float32
        """
        if self.n != 1:
            g_s = g_s * self.n
        self.factors = Factors(g_s, a, scale) if deferred else None
        if not deferred:
            self.weight.grad = torch.mm(g_s.t(), a, out=self.empty_gradient())

    def take_factors(self) -> Factors | None:
        """The factors of the gradient, or None; clears them."""
        factors, self.factors = self.factors, None
        return factors

    def empty_gradient(self) -> torch.Tensor:
        """The buffer of g_W."""
        if self.gradient.shape != self.weight.shape:
            self.gradient = torch.empty_like(self.weight, requires_grad=False)
        return self.gradient
