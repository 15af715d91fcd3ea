"""Deterministic binarization (Eq. 1)."""

import torch


def sign(r: torch.Tensor) -> torch.Tensor:
    """q = Sign(r): +1 where r >= 0, else -1 (Eq. 1).

    Zero and minus zero become +1. `torch.sign` gives 0 there, a third value that no bit can hold.
    """
    return torch.ge(r, 0, out=torch.empty_like(r)).mul_(2).sub_(1)
