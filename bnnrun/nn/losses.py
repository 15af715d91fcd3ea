"""The loss of the paper's networks."""

import torch


def squared_hinge(scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean over images and classes of max(0, 1 - t·y)², t = +1 for the true class, else -1.

    Shapes:
        scores: (B, classes) float, the last batch norm's output, not binarized
        labels: (B,) int64
        returns a scalar
    """
    t = torch.full_like(scores, -1.0).scatter_(1, labels[:, None], 1.0)
    return (1 - t * scores).clamp_min(0).square().mean()
