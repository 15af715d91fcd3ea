"""The optimizers' updates on the processor: one fused kernel for each parameter.

If g_W of a fully connected layer is deferred, the kernel computes it from its factors and never
writes it to memory. It packs the new signs while the new weights are in the cache.
"""

from collections.abc import Callable, Iterator
from typing import Any, cast

import numpy as np
import torch
from torch.autograd.graph import increment_version

from bnnrun.config import AdaMaxRule
from bnnrun.engine.cpu.factors import HAS_BYTES, HAS_REALS, MAX_BATCH, ByteFactors, RealFactors
from bnnrun.engine.cpu.kernels.elementwise import Floats, adam_kernel, adamax_kernel
from bnnrun.engine.cpu.kernels.packing import BLOCK
from bnnrun.engine.cpu.packed import PackedWeights
from bnnrun.engine.cpu.state import BinaryState, Factors
from bnnrun.engine.memory import flat, is_dense
from bnnrun.nn.optim import NO_GRADIENT, TORCH7_EPS, Adam, Rule, ShiftAdaMax, slot

PART_WEIGHTS = 2**19  # weights whose gradients are computed together: they stay in the cache

# (optimizer, w, its state, its group, its layer's state where it is a binary weight) -> whether
# the parameter was updated; else the optimizer's own update must.
FusedUpdate = Callable[
    [Any, torch.Tensor, dict[str, Any], dict[str, Any], BinaryState | None], bool
]


def update_adam(
    rule: Adam,
    w: torch.Tensor,
    state: dict[str, Any],
    group: dict[str, Any],
    layer: BinaryState | None,
) -> bool:
    """Adam's step, scaled and clipped, from `w.grad` or from the gradient's factors."""
    factors = None if layer is None else layer.take_factors()
    m, v = slot(state, "m", w), slot(state, "v", w)
    constants = _adam_constants(rule, group)
    if factors is None:
        assert w.grad is not None
        if not _are_streams(w.detach(), w.grad, m, v):
            return False
        _run_adam(w.grad, (w.detach(), m, v), constants, group["clip"])
        return True
    assert layer is not None
    _update_from_factors(layer, factors, (w.detach(), m, v), constants, group["clip"])
    return True


def _adam_constants(rule: Adam, group: dict[str, Any]) -> Floats:
    """The `constants` of `adam_kernel`."""
    step = group["scale"] * rule.rate
    b1, b2 = rule.beta1, rule.beta2
    return np.array([b1, 1 - b1, b2, 1 - b2, step, rule.eps], np.float32)


def _run_adam(
    g: torch.Tensor,
    streams: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    constants: Floats,
    clip: bool,
) -> None:
    w, m, v = map(flat, streams)
    adam_kernel(w, flat(g), m, v, constants, clip)
    increment_version(streams[0])  # NumPy wrote to it without doing so; packed signs are stale


def _update_from_factors(
    layer: BinaryState,
    factors: Factors,
    streams: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    constants: Floats,
    clip: bool,
) -> None:
    packed = layer.packed if isinstance(layer.packed, PackedWeights) else None
    by_bytes = HAS_BYTES and factors.scale is not None and len(factors.a) <= MAX_BATCH
    if packed is not None and (by_bytes or HAS_REALS):
        g_w = (
            ByteFactors.of(factors.g_s, factors.a, cast(float, factors.scale))
            if by_bytes
            else RealFactors.of(factors.g_s, factors.a)
        )
        w, m, v = (t.numpy() for t in streams)
        g_w.update((w, m, v), constants, packed, clip=clip)
    else:
        _update_by_parts(factors, streams, packed, constants, clip)
    if packed is not None:
        # The fused update already packed the new signs; packed_version then equals weight._version.
        layer.mark_packed()


def _update_by_parts(
    factors: Factors,
    streams: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    packed: PackedWeights | None,
    constants: Floats,
    clip: bool,
) -> None:
    """Compute gradient, step and signs of some rows at a time, while these are in the cache."""
    rows: torch.Tensor | None = None
    for part in parts(streams[0]):
        w, m, v = (t[part] for t in streams)
        rows = torch.empty_like(w) if rows is None else rows
        _run_adam(factors.rows(part, rows), (w, m, v), constants, clip)
        if packed is not None:
            packed.pack(w, part.start)


def parts(w: torch.Tensor) -> Iterator[slice]:
    """Slices of rows of about PART_WEIGHTS elements, each a multiple of BLOCK rows."""
    step = max(1, PART_WEIGHTS // w.shape[1] // BLOCK) * BLOCK
    return (slice(start, start + step) for start in range(0, len(w), step))


def update_adamax(
    rule: ShiftAdaMax,
    w: torch.Tensor,
    state: dict[str, Any],
    group: dict[str, Any],
    layer: BinaryState | None,
) -> bool:
    """Shift-based AdaMax's step, scaled and clipped, by either rule."""
    assert w.grad is not None
    streams = w.detach(), w.grad, slot(state, "m", w), slot(state, "v", w)
    if not _are_streams(*streams):
        return False
    at, g, m, v = map(flat, streams)
    step = group["scale"] * rule.rate
    constants = np.array([1 - rule.beta1, rule.beta2, step, TORCH7_EPS, NO_GRADIENT], np.float32)
    adamax_kernel(at, g, m, v, constants, group["clip"], rule.rule is AdaMaxRule.code)
    increment_version(w)
    return True


def _are_streams(*tensors: torch.Tensor) -> bool:
    """Whether all tensors are dense and have the same strides, so that one flat loop can run."""
    return all(is_dense(t) and t.stride() == tensors[0].stride() for t in tensors)


FUSED: dict[type[Rule], FusedUpdate] = {Adam: update_adam, ShiftAdaMax: update_adamax}
