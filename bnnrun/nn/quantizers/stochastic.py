"""Stochastic binarization (Eq. 2-3)."""

import torch


def stochastic_sign(r: torch.Tensor, bits: torch.Tensor) -> torch.Tensor:
    """q = +1 with probability p = hard_sigmoid(r) = clip((r + 1) / 2, 0, 1), else -1 (Eq. 2-3).

    Shapes: r float; bits int64 in [0, 2^32), uniform (sampling.random_bits); alike
    """
    below = bits.double() < (r.double() + 1) * 2**31  # u < p · 2^32; the clip changes nothing
    return below.to(r.dtype).mul_(2).sub_(1)
