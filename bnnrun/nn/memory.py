"""Memory of tensors: kept when it is freed, and as the passes of nn/kernels take it: flat, in
whatever order it lies.
"""

import ctypes
import os
import sys

import numpy as np
import torch
from numpy.typing import NDArray

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h
NEVER = -1


def keep_freed() -> bool:
    """Have the C library keep freed memory and hand it out again; whether it could be told.

    glibc returns an array of megabytes to the system as it is freed. The next one then comes as
    new pages, each cleared at its first use: some 12,000 in a step of the CIFAR-10 ConvNet. Another
    C library, and one whose user has set its variables, is left as it is.

    torch can ask for pages of 2 MiB besides. It then aligns its arrays to them, the gaps are handed
    out, and an array no longer fits where the same one lay: memory grew by up to a third, no step
    was faster.
    """
    chosen = any(name == "GLIBC_TUNABLES" or name.startswith("MALLOC_") for name in os.environ)
    if chosen or not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, NEVER))


def is_dense(t: torch.Tensor) -> bool:
    """Whether a pass can take the tensor as it lies: float32 on the processor, without gaps."""
    return t.is_cpu and t.dtype == torch.float32 and has_no_gaps(t)


def has_no_gaps(t: torch.Tensor) -> bool:
    """Whether its elements lie side by side, in one of the usual orders."""
    return t.is_contiguous() or t.is_contiguous(memory_format=torch.channels_last)


def channels_innermost(t: torch.Tensor) -> torch.Tensor:
    """(B, N) or (B, N, H, W) with the N channels side by side in memory."""
    return t.contiguous() if t.dim() == 2 else t.contiguous(memory_format=torch.channels_last)


def flat(t: torch.Tensor) -> NDArray[np.float32]:
    """(n,) view of a dense tensor's memory."""
    found: NDArray[np.float32] = t.detach().as_strided((t.numel(),), (1,)).numpy()
    return found
