"""Random bits as a function of where they are used, the same for every engine and device.

    h(x, n) = mix(x + (n + 1) · golden)         64-bit integers that wrap around
    key     = h(h(h(h(0, seed), step), layer), use)
    bits of element i = h(key, i) >> 32         32 of them

`step` counts updates from 1; `layer` from 0. Element i of activations is image · (C · H · W) +
(c · H + y) · W + x; of weights, their place in (N, K) or (N, C, 3, 3). No generator has a state, so
results depend neither on threads nor on where a run was stopped.

`mix` is the finalizer of SplitMix64; golden is 2^64 over the golden ratio. Source: Steele, Lea and
Flood, "Fast splittable pseudorandom number generators" (2014).
"""

from enum import IntEnum

import torch

GOLDEN, FACTOR_1, FACTOR_2 = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


class Use(IntEnum):
    """What random bits of a layer are for."""

    dropout = 0
    weights = 1
    activations = 2


def extend(key: torch.Tensor, n: int | torch.Tensor) -> torch.Tensor:
    """h(key, n): another key. Both int64."""
    z = key + (n + 1) * _signed(GOLDEN) if isinstance(n, torch.Tensor) else _plus(key, n)
    z = (z ^ _shifted(z, 30)) * _signed(FACTOR_1)
    z = (z ^ _shifted(z, 27)) * _signed(FACTOR_2)
    mixed: torch.Tensor = z ^ _shifted(z, 31)
    return mixed


def step_key(seed: int, step: int) -> torch.Tensor:
    """The key of a step, () int64."""
    return extend(extend(torch.zeros((), dtype=torch.int64), seed), step)


def layer_key(step: torch.Tensor, layer: int, use: Use) -> torch.Tensor:
    """The key of one use in a layer, from its step's."""
    return extend(extend(step, layer), use)


def random_bits(key: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """`shape` int64 in [0, 2^32), uniform, on the device of `key`."""
    element = torch.arange(shape.numel(), device=key.device)
    return _shifted(extend(key, element), 32).view(shape)


def dropped_below(share: float) -> int:
    """Elements are dropped whose bits are below this number."""
    return int(share * 2**32)


def _plus(key: torch.Tensor, n: int) -> torch.Tensor:
    return key + _signed((n + 1) * GOLDEN % 2**64)


def _signed(n: int) -> int:
    """The int64 of the same 64 bits."""
    return n - 2**64 if n >= 2**63 else n


def _shifted(z: torch.Tensor, by: int) -> torch.Tensor:
    """z >> by, filled up with zeros: torch's own shift keeps the sign."""
    result: torch.Tensor = (z >> by) & (2 ** (64 - by) - 1)
    return result
