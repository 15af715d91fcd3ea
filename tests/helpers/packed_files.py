"""Random packed networks and their files, right or made wrong on purpose."""

import dataclasses
import json

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from bnnrun.architecture import plan
from bnnrun.config import BinarizationConfig, Binarizer, ConvNetConfig, MlpConfig
from bnnrun.data.dataset import ImageSpec
from bnnrun.errors import InputError
from bnnrun.gemm.bits import pack
from bnnrun.runtime import file
from bnnrun.runtime.model import PackedLayer, PackedModel, borders

MLP = (MlpConfig(name="mlp", depth=2, width=17), (1, 3, 4), ("a", "b", "c"), 255)
CONVNET = (ConvNetConfig(name="convnet", channels=[5, 3], fc=[9]), (2, 5, 4), ("a", "b"), 16)
SOURCE = {"dataset": "made_up", "seed": "3", "epoch": "1"}


def random_model(arch, shape, classes, levels, *, seed=0, bits=(1, 1)) -> PackedModel:
    """Random bits, directions and thresholds about the middle of the sums.

    Args:
        bits: of weights and of activations
    """
    binarization = BinarizationConfig(
        Binarizer.sign, Binarizer.sign, weight_bits=bits[0], activation_bits=bits[1]
    )
    rng = np.random.default_rng(seed)
    kind = ImageSpec(shape, tuple(classes), levels)
    layers, none = [], np.zeros(0)
    for i, layer in enumerate(plan(arch, kind, binarization)):
        n, last = layer.outputs, layer.last
        count = 0 if last else len(borders(*layer.size)[1]) if i == 0 and layer.is_conv else 1
        spread = int(np.sqrt(layer.k)) * layer.unit * (levels if i == 0 else 1)
        flip = np.zeros(n, bool) if last else rng.random(n) < 0.5
        size = 0 if last else 2**layer.output_bits - 1, count, n
        t = np.sort(rng.integers(-spread, spread + 1, size), axis=0)
        layers.append(
            PackedLayer(
                dataclasses.replace(layer, dropout=0.0),
                pack(rng.random((layer.weight_bits, n, layer.k)) < 0.5),
                np.where(flip, t[::-1], t).astype(np.int32),
                flip,
                *(rng.normal(size=(3, n)) if last else (none, none, none)),
            )
        )
    return PackedModel(kind, tuple(layers), (2.0, -float(levels), float(levels)), SOURCE)


def images_of(model: PackedModel, count: int = 9) -> np.ndarray:
    shape = (count, *model.spec.image_shape)
    return np.random.default_rng(1).integers(0, model.spec.max_pixel + 1, shape).astype(np.uint8)


def assert_same_model(ours: PackedModel, theirs: PackedModel) -> None:
    assert ours.spec == theirs.spec
    assert ours.input == theirs.input
    assert ours.source == theirs.source
    for a, b in zip(ours.layers, theirs.layers, strict=True):
        assert a.shape == b.shape
        for name in ("weight", "threshold", "flip", "mean", "scale", "shift"):
            x, y = getattr(a, name), getattr(b, name)
            assert (x.dtype, x.shape) == (y.dtype, y.shape), f"{a.shape.name}.{name}"
            np.testing.assert_array_equal(x, y)


def content(path) -> tuple[dict, dict, dict]:
    """(metadata, description of the network, arrays) of a packed file."""
    with safe_open(path, framework="numpy") as opened:
        metadata = opened.metadata()
        arrays = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
    return metadata, json.loads(metadata["network"]), arrays


def write(path, network, arrays, **metadata) -> None:
    """A packed file with the right checksum, of a description (or its text) and any arrays."""
    text = network if isinstance(network, str) else json.dumps(network)
    header = {
        "format": "bnnrun-packed",
        "version": "1",
        "network": text,
        "sha256": file._checksum(text, arrays),
    }
    save_file(arrays, path, {**header, **metadata})


def refusal(path) -> str:
    """The one line that refuses a file."""
    with pytest.raises(InputError) as refused:
        file.load(path)
    line = str(refused.value)
    assert len(line.splitlines()) == 1
    assert str(path) in line
    assert len(line) < 500 + len(str(path))
    return line.removeprefix(f"{path}: ")
