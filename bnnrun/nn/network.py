"""The paper's networks: an input scaling and a stack of blocks, made from a plan."""

from typing import cast

import torch
from torch import nn

from bnnrun.architecture import plan
from bnnrun.config import ArchConfig, BinarizationConfig, NormConfig
from bnnrun.data.dataset import ImageSpec
from bnnrun.data.preprocess import Input
from bnnrun.nn.layers import Block


class InputScale(nn.Module):
    """8-bit pixels to network input: (p·x + q) / d, then whitened where the input is.

    Its numbers are part of the network's state: a checkpoint needs no training images to run.
    """

    p: torch.Tensor
    q: torch.Tensor
    d: torch.Tensor
    zca_mean: torch.Tensor | None
    zca_matrix: torch.Tensor | None

    def __init__(self, scaling: Input) -> None:
        super().__init__()
        for name in ("p", "q", "d"):
            self.register_buffer(name, torch.tensor(getattr(scaling, name), dtype=torch.float64))
        for name in ("zca_mean", "zca_matrix"):
            array = getattr(scaling, name)
            self.register_buffer(name, None if array is None else torch.from_numpy(array))

    def forward(self, x: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """Pixels (B, C, H, W) uint8 to input of the same shape."""
        a = (self.p.to(dtype) * x.to(dtype) + self.q.to(dtype)) / self.d.to(dtype)
        if self.zca_mean is None or self.zca_matrix is None:
            return a
        whitened = (a.flatten(1) - self.zca_mean.to(dtype)) @ self.zca_matrix.to(dtype)
        return whitened.view_as(a)


class Network(nn.Module):
    """The parameters of a classifier of 8-bit images. An engine computes with them."""

    def __init__(
        self,
        arch: ArchConfig,
        binarization: BinarizationConfig,
        norm: NormConfig,
        spec: ImageSpec,
        scaling: Input,
    ) -> None:
        super().__init__()
        self.spec = spec
        self.input = InputScale(scaling)
        self.stack = nn.ModuleList(
            Block(layer, binarization, norm, index)
            for index, layer in enumerate(plan(arch, spec, binarization))
        )

    @property
    def blocks(self) -> tuple[Block, ...]:
        """The blocks, first to last."""
        return cast(tuple[Block, ...], tuple(self.stack))
