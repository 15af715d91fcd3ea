"""Small made-up data sets in the formats of the published files.

Random pixels from a fixed seed; labels go round the classes, so each stretch of images holds all
of them. They have not the published checksums: read them with dataset.verify=off and a small
dataset.validation. Each writer returns what it wrote.
"""

import dataclasses
import functools
import gzip
import io
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra import compose
from PIL import Image
from scipy.io import savemat

from bnnrun.cli.compose import hydra_session, to_config
from bnnrun.config import DatasetConfig, Verify
from bnnrun.data import load
from bnnrun.data.cifar10 import SPEC as CIFAR10
from bnnrun.data.dataset import Images
from bnnrun.errors import InputError

VALIDATION = {"mnist": 20, "cifar10": 20, "svhn": 2}  # of 100 training images; svhn: of each class


def make_images(
    count: int, shape: tuple[int, int, int], *, classes: int = 10, seed: int = 0
) -> Images:
    """Random images whose labels go round the classes: 0, 1, ..., 9, 0, ..."""
    rng = np.random.default_rng([seed, count])
    pixels = rng.integers(0, 256, (count, *shape), dtype=np.uint8)
    return Images(pixels, (np.arange(count) % classes).astype(np.uint8))


def write_mnist(root: Path, train: int = 100, test: int = 50) -> dict[str, Images]:
    """The four idx files under root/MNIST/raw."""
    folder = root / "MNIST" / "raw"
    folder.mkdir(parents=True, exist_ok=True)
    parts = {
        "train": make_images(train, (1, 28, 28)),
        "t10k": make_images(test, (1, 28, 28), seed=1),
    }
    for name, images in parts.items():
        arrays = {"images-idx3": images.pixels[:, 0], "labels-idx1": images.labels}
        for kind, array in arrays.items():
            (folder / f"{name}-{kind}-ubyte.gz").write_bytes(gzip.compress(idx(array)))
    return {"train": parts["train"], "test": parts["t10k"]}


def idx(array: np.ndarray) -> bytes:
    """An array of bytes as an idx file."""
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def write_cifar10(root: Path, train: int = 100, test: int = 50) -> dict[str, Images]:
    """Five training batches of train / 5 images, a test batch and the names of the classes."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True, exist_ok=True)
    parts = {
        "train": make_images(train, (3, 32, 32)),
        "test": make_images(test, (3, 32, 32), seed=1),
    }
    size, rest = divmod(train, 5)
    assert rest == 0, "five batches of one size"
    for i in range(5):
        batch = parts["train"].take(slice(i * size, (i + 1) * size))
        (folder / f"data_batch_{i + 1}").write_bytes(cifar10_batch(batch))
    (folder / "test_batch").write_bytes(cifar10_batch(parts["test"]))
    (folder / "batches.meta").write_bytes(python2_pickle({"label_names": list(CIFAR10.classes)}))
    return parts


def cifar10_batch(images: Images) -> bytes:
    """A pickled batch as Python 2 wrote the published ones."""
    data = images.pixels.reshape(len(images), -1)
    return python2_pickle({"labels": images.labels.tolist(), "data": data})


def python2_pickle(value: Any) -> bytes:
    """Protocol 2 with byte strings and NumPy's old module names, which Python 3 cannot write."""
    return b"\x80\x02" + _opcodes(value) + b"."


def _opcodes(value: Any) -> bytes:
    if isinstance(value, dict):
        pairs = b"".join(_opcodes(k) + _opcodes(v) for k, v in value.items())
        return b"}(" + pairs + b"u"
    if isinstance(value, list):
        return b"](" + b"".join(map(_opcodes, value)) + b"e"
    if isinstance(value, str):
        return b"U" + bytes([len(value)]) + value.encode("latin1")
    if isinstance(value, int):
        return b"J" + struct.pack("<i", value)
    assert isinstance(value, np.ndarray) and value.dtype == np.uint8 and value.ndim == 2
    empty = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    dtype = b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNN" + 2 * _opcodes(-1) + b"K\x00tb"
    shape = _opcodes(value.shape[0]) + _opcodes(value.shape[1]) + b"\x86"
    content = b"T" + struct.pack("<i", value.size) + value.tobytes()
    return empty + b"(K\x01" + shape + dtype + b"\x89" + content + b"tb"


def write_svhn(root: Path, parts: Mapping[str, int] | None = None) -> dict[str, Images]:
    """MATLAB files of the parts: by default 100 images of train and 50 of test."""
    folder = root / "svhn"
    folder.mkdir(parents=True, exist_ok=True)
    written = {}
    for seed, (name, count) in enumerate((parts or {"train": 100, "test": 50}).items()):
        images = make_images(count, (3, 32, 32), seed=seed)
        y = np.where(images.labels == 0, 10, images.labels).astype(np.uint8)[:, None]
        # (image, colour, row, column) -> (row, column, colour, image)
        content = {"X": images.pixels.transpose(2, 3, 1, 0), "y": y}
        savemat(folder / f"{name}_32x32.mat", content, do_compression=True)
        written[name] = images
    return written


def write_folder(
    root: Path,
    classes: Sequence[str] = ("cat", "dog"),
    per_class: int = 20,
    *,
    parts: Sequence[str] = (),
    size: tuple[int, int] = (9, 7),
) -> None:
    """PNG files of `size` (height, width): root/CLASS/*.png, or root/PART/CLASS/*.png."""
    for seed, part in enumerate(parts or [""]):
        images = make_images(per_class * len(classes), (3, *size), classes=len(classes), seed=seed)
        for i, (pixels, label) in enumerate(zip(images.pixels, images.labels, strict=True)):
            path = root / part / classes[label] / f"{i:04}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(png(pixels))


def png(pixels: np.ndarray) -> bytes:
    """(3, height, width) uint8 as a PNG file."""
    content = io.BytesIO()
    Image.fromarray(pixels.transpose(1, 2, 0)).save(content, "PNG")
    return content.getvalue()


@functools.cache
def composed(name: str) -> DatasetConfig:
    """conf/dataset/NAME.yaml, as the command line composes it."""
    with hydra_session():
        settings: DatasetConfig = to_config(compose("summary", [f"dataset={name}"])).dataset
    return settings


def config(name: str, /, **settings: Any) -> DatasetConfig:
    """The settings of a data set, with those given in their place."""
    paths = {key: str(value) for key, value in settings.items() if isinstance(value, Path)}
    return dataclasses.replace(composed(name), **settings | paths)


def small(name: str, root: Path, **settings: Any) -> DatasetConfig:
    """The settings for a made-up data set."""
    known = {"verify": Verify.off, "validation": VALIDATION[name]}
    return config(name, root=root, **known | settings)


def assert_same(images: Images, expected: Images) -> None:
    np.testing.assert_array_equal(images.pixels, expected.pixels)
    np.testing.assert_array_equal(images.labels, expected.labels)
    assert images.pixels.dtype == images.labels.dtype == np.uint8
    assert images.pixels.flags.c_contiguous and images.pixels.flags.writeable


def refused(settings: DatasetConfig) -> str:
    """The one line that reading ends with."""
    with pytest.raises(InputError) as caught:
        load(settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


WRITERS = {"mnist": write_mnist, "cifar10": write_cifar10, "svhn": write_svhn}
