"""A tensor's memory as the passes of nn/kernels take it: flat, in whatever order it lies."""

import numpy as np
import torch
from numpy.typing import NDArray


def is_dense(t: torch.Tensor) -> bool:
    """Whether a pass can take the tensor as it lies: float32 on the processor, without gaps."""
    return t.is_cpu and t.dtype == torch.float32 and has_no_gaps(t)


def has_no_gaps(t: torch.Tensor) -> bool:
    """Whether its elements lie side by side, in one of the usual orders."""
    return t.is_contiguous() or t.is_contiguous(memory_format=torch.channels_last)


def flat(t: torch.Tensor) -> NDArray[np.float32]:
    """(n,) view of a dense tensor's memory."""
    found: NDArray[np.float32] = t.detach().as_strided((t.numel(),), (1,)).numpy()
    return found
