"""Memory of tensors: kept when it is freed, where the same array fits again, and as the kernels of
engine/cpu/kernels take it: flat, in whatever order it lies.
"""

import ctypes
import math
import os
import sys

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h
NEVER = -1
LINE = 64  # bytes of the cache


def keep_freed() -> bool:
    """Have the C library keep freed memory and hand it out again; whether it could be told.

    glibc returns an array of megabytes to the system as it is freed. The next one then comes as
    new pages, each cleared at its first use: some 12,000 in a step of the CIFAR-10 ConvNet. Another
    C library, and one whose user has set its variables, is left as it is.
    """
    chosen = any(name == "GLIBC_TUNABLES" or name.startswith("MALLOC_") for name in os.environ)
    if chosen or not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, NEVER))


def empty(
    *shape: int, channels_last: bool = False, dtype: torch.dtype = torch.float32
) -> torch.Tensor:
    """As torch.empty on the processor, but where it was freed the same size fits again.

    torch asks the C library for memory that begins on a line of the cache. glibc finds it inside a
    larger piece and hands out what lies before, so that the freed rest is too small for the next
    such array: where freed memory is kept, a training step of the CIFAR-10 ConvNet came to need a
    fifth more. (Pages of 2 MiB, which torch can ask for, make these gaps large.)

    Shapes: (B, C, H, W) where `channels_last`, which then lie side by side
    """
    size = math.prod(shape) * dtype.itemsize
    buffer = np.empty(size + LINE, np.uint8)
    start = -buffer.ctypes.data % LINE
    t = torch.from_numpy(buffer)[start : start + size].view(dtype)
    if not channels_last:
        return t.view(shape)
    b, c, h, w = shape
    return t.view(b, h, w, c).permute(0, 3, 1, 2)


def empty_like(t: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """`empty` of the shape and order of a tensor without gaps."""
    return empty(*t.shape, channels_last=not t.is_contiguous(), dtype=dtype)


def is_dense(t: torch.Tensor) -> bool:
    """Whether a pass can take the tensor as it lies: float32 on the processor, without gaps."""
    return t.is_cpu and t.dtype == torch.float32 and has_no_gaps(t)


def has_no_gaps(t: torch.Tensor) -> bool:
    """Whether its elements lie side by side, in one of the usual orders."""
    return t.is_contiguous() or t.is_contiguous(memory_format=torch.channels_last)


def channels_innermost(t: torch.Tensor) -> torch.Tensor:
    """(B, N) or (B, N, H, W) with the N channels side by side in memory."""
    return t.contiguous() if t.dim() == 2 else t.contiguous(memory_format=torch.channels_last)


def filters_innermost(network: nn.Module) -> None:
    """Order the filters of a network as `channels_innermost`, in place.

    Those of one channel stay as they are. nn.Module.to(memory_format=...) would give them other
    strides, by which torch picks another algorithm for a convolution's gradients.
    """
    for weight in network.parameters():
        if weight.dim() == 4:
            weight.data = channels_innermost(weight.data)


def flat(t: torch.Tensor) -> NDArray[np.float32]:
    """(n,) view of a dense tensor's memory."""
    array: NDArray[np.float32] = t.detach().as_strided((t.numel(),), (1,)).numpy()
    return array
