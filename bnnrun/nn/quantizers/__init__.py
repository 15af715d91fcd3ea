"""Quantizers: real numbers become ±1 (Eq. 1-3), with a gradient in place of that of Sign.

Forward is `sign` (Eq. 1) or `stochastic` (Eq. 2-3). Backward is an estimator: a module of this
package that is named as its choice in `config.Estimator` and has a function `estimate(r, q)`, which
returns q and passes the gradient of q on to r.
"""

from collections.abc import Callable
from importlib import import_module

import torch

from bnnrun.config import Estimator
from bnnrun.nn.quantizers.sign import sign
from bnnrun.nn.quantizers.stochastic import stochastic_sign

__all__ = ["estimate_of", "quantize", "sign", "stochastic_sign"]
Estimate = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def quantize(
    r: torch.Tensor, estimator: Estimator, bits: torch.Tensor | None = None
) -> torch.Tensor:
    """q = Sign(r), or sampled by `bits` (sampling.random_bits), with the estimator's gradient.

    Shapes: r, bits, and what is returned alike; r float
    """
    with torch.no_grad():
        q = sign(r) if bits is None else stochastic_sign(r, bits)
    return estimate_of(estimator)(r, q)


def estimate_of(estimator: Estimator) -> Estimate:
    """The function `estimate` of an estimator's module."""
    found: Estimate = import_module(f"{__name__}.{estimator.value}").estimate
    return found
