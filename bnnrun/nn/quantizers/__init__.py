"""Quantizers: real numbers become ±1 (Eq. 1-3), with a gradient in place of that of Sign.

Forward is `sign` (Eq. 1), `stochastic` (Eq. 2-3), or `levels` where there are more bits than one.
Backward is an estimator: a module of this
package that is named as its choice in `config.Estimator` and has a function `estimate(r, q)`, which
returns q and passes the gradient of q on to r.
"""

from collections.abc import Callable
from importlib import import_module

import torch

from bnnrun.config import Estimator
from bnnrun.nn.quantizers.levels import Unscaled, levels
from bnnrun.nn.quantizers.sign import sign
from bnnrun.nn.quantizers.stochastic import stochastic_sign

__all__ = ["estimate_of", "levels", "quantize", "sign", "stochastic_sign"]
Estimate = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def quantize(
    r: torch.Tensor, estimator: Estimator, sampled_by: torch.Tensor | None = None, *, bits: int = 1
) -> torch.Tensor:
    """q(r) with the estimator's gradient: Sign(r), or 2c - n of the `bits` bits of q(r) = 2c/n - 1.

    Shapes: r, sampled_by, and what is returned alike; r float

    Args:
        sampled_by: random bits (sampling.random_bits) that q = ±1 is sampled by; None: no sampling
    """
    with torch.no_grad():
        q = levels(r, bits) if sampled_by is None else stochastic_sign(r, sampled_by)
    q = estimate_of(estimator)(r, q)
    return q if bits == 1 else Unscaled.apply(q, 2**bits - 1)


def estimate_of(estimator: Estimator) -> Estimate:
    """The function `estimate` of an estimator's module."""
    estimate: Estimate = import_module(f"{__name__}.{estimator.value}").estimate
    return estimate
