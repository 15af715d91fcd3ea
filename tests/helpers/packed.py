"""Packed networks as `pack` makes them: thresholds of a batch norm, of either sign and of none.

`packed_networks` makes thresholds at random, also such as no batch norm gives.
"""

from collections.abc import Sequence

import numpy as np
import torch
from networks import ODD, SPEC, TWELVE, network

from bnnrun.config import Preprocessing
from bnnrun.data.dataset import ImageSpec
from bnnrun.pack.convert import pack_network
from bnnrun.runtime.model import PackedModel

SOURCE = {"dataset": "made_up", "seed": "0", "epoch": "1"}
WIDE = ImageSpec(image_shape=(1, 2, 9), classes=("a", "b"), max_pixel=255)
# Odd widths, odd images, widths past a word, one layer and many; each with its images.
KINDS = {
    "mlp": (("arch=mlp", "arch.depth=2", "arch.width=33"), SPEC),
    "mlp, odd image": (("arch=mlp", "arch.depth=3", "arch.width=13"), ODD),
    "mlp, 100": (("arch=mlp", "arch.depth=1", "arch.width=100"), TWELVE),
    "convnet": (("arch=convnet", "arch.channels=[8,16]", "arch.fc=[24]"), SPEC),
    "convnet, odd image": (("arch=convnet", "arch.channels=[5,33,7]", "arch.fc=[9,17]"), ODD),
    "convnet, two poolings": (("arch=convnet", "arch.channels=[3,40,9,5]", "arch.fc=[]"), TWELVE),
    "convnet, two rows": (("arch=convnet", "arch.channels=[11]", "arch.fc=[3]"), WIDE),
}


def bits_of(weight: int, activation: int) -> list[str]:
    """Settings of the bits of a network's weights and activations."""
    names = (("weight_bits", weight), ("activation_bits", activation))
    return [f"binarization.{name}={bits}" for name, bits in names]


def random_model(
    seed: int,
    kind: str,
    preprocessing: Preprocessing = Preprocessing.scale,
    bits: Sequence[str] = (),
) -> PackedModel:
    """The packed form of a network of random weights and batch norms.

    Of each layer's channels about a tenth have gamma 0, and half of the others gamma < 0. The
    running statistics are near those of the pre-activations, so that both bits occur.

    Args:
        kind: of `KINDS`
        preprocessing: scale or standardize, the scalings that pack
        bits: settings, such as `bits_of` makes them
    """
    words, spec = KINDS[kind]
    net = network(*words, *bits, kind=spec, preprocessing=preprocessing)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for block in net.blocks:
            norm, deviation = block.norm, np.sqrt(block.layer.k)
            block.product.weight.uniform_(-1, 1, generator=generator)
            norm.mean.normal_(0, 0.2 * deviation, generator=generator)
            norm.inv_std.uniform_(0.5 / deviation, 2 / deviation, generator=generator)
            norm.beta.uniform_(-0.2, 0.2, generator=generator)
            chance = torch.rand(norm.gamma.shape, generator=generator)
            norm.gamma.copy_(torch.where(chance < 0.45, -0.5 - chance, 0.5 + chance))
            if not block.layer.last:
                norm.gamma[chance > 0.9] = 0
    return pack_network(net, SOURCE)
