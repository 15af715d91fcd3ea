"""Networks, images and engines of many kinds, for tests that compare what computes them."""

import copy
import functools
from typing import Any

import numpy as np
import torch
from command import configure

from bnnrun.config import Preprocessing
from bnnrun.data.dataset import Images, ImageSpec
from bnnrun.data.preprocess import fit
from bnnrun.nn.network import Network

SPEC = ImageSpec(image_shape=(1, 8, 8), classes=tuple("0123456789"), max_pixel=16)
ODD = ImageSpec(image_shape=(3, 7, 10), classes=("a", "b", "c"), max_pixel=255)
# Six by six pixels after the first pooling: no whole tiles of Winograd's filtering.
TWELVE = ImageSpec(image_shape=(1, 12, 12), classes=("a", "b", "c"), max_pixel=16)


@functools.cache
def typed(*words: str) -> Any:
    """The configuration of `bnnrun train dataset=digits WORD ...`."""
    return configure("train", "dataset=digits", *words)


def images(n: int, seed: int = 0, kind: ImageSpec = SPEC) -> torch.Tensor:
    """(n, C, H, W) uint8, uniform."""
    sampled = np.random.default_rng(seed).integers(0, kind.max_pixel + 1, (n, *kind.image_shape))
    return torch.from_numpy(sampled.astype(np.uint8))


@functools.cache
def _network(words: tuple[str, ...], kind: ImageSpec, preprocessing: Preprocessing) -> Network:
    config = typed("arch=mlp", *words)
    torch.manual_seed(0)
    pixels = images(200, seed=7, kind=kind).numpy()
    scaling = fit(preprocessing, Images(pixels, np.zeros(200, np.uint8)), kind.max_pixel)
    return Network(config.arch, config.binarization, config.norm, kind, scaling)


def network(*words: str, kind: ImageSpec = SPEC, preprocessing=Preprocessing.scale) -> Network:
    """The network of a configuration with its initial weights; the same each time."""
    return copy.deepcopy(_network(words, kind, preprocessing))


def randomize_norms(net: Network, seed: int = 1) -> Network:
    """Give each gamma another sign and size, and no beta 0: then no sum at the mean decides."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for block in net.blocks:
            block.norm.gamma.normal_(generator=generator)
            block.norm.beta.uniform_(-0.5, 0.5, generator=generator)
    return net


def labels_of(x: torch.Tensor, net: Network) -> torch.Tensor:
    """(B,) int64, each class in turn."""
    return torch.arange(len(x)) % len(net.spec.classes)
