"""MNIST (LeCun and Cortes): 60,000 + 10,000 digits of 28x28 pixels, from the four idx files."""

import gzip
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bnnrun.config import DatasetConfig
from bnnrun.data.dataset import OR_HOLD_OUT, Dataset, Images, Kind, split_in_order
from bnnrun.data.published import DataFile, check_file, holds_out_test, locate
from bnnrun.errors import InputError

TRAIN = (
    DataFile("MNIST/raw/train-images-idx3-ubyte.gz", "f68b3c2dcbeaaa9fbdd348bbdeb94873", 9912422),
    DataFile("MNIST/raw/train-labels-idx1-ubyte.gz", "d53e105ee54ea40749a09fcbcd1e9432", 28881),
)
TEST = (
    DataFile("MNIST/raw/t10k-images-idx3-ubyte.gz", "9fb629c4189551a2d022fa330f9573f3", 1648877),
    DataFile("MNIST/raw/t10k-labels-idx1-ubyte.gz", "ec29112dd5afa0611ce80d1b7f02629c", 4542),
)
FILES = (*TRAIN, *TEST)
KIND = Kind(image_shape=(1, 28, 28), classes=tuple("0123456789"), levels=255)


def describe(config: DatasetConfig) -> Kind:
    """Shape, classes and levels."""
    return KIND


def read(config: DatasetConfig) -> Dataset:
    """The first 50,000 training images train, the last 10,000 validate, as the authors split."""
    held_out = holds_out_test(config, TEST)
    sources = [check_file(config, file) for file in TRAIN]
    if not held_out:
        sources += [check_file(config, file, OR_HOLD_OUT) for file in TEST]
    train = _read_pair(locate(config, TRAIN[0]), locate(config, TRAIN[1]))
    test = None if held_out else _read_pair(locate(config, TEST[0]), locate(config, TEST[1]))
    return split_in_order(config, KIND, train, test, tuple(sources))


def _read_pair(images: Path, labels: Path) -> Images:
    """The images of one idx file with the labels of another."""
    pixels, digits = read_idx(images), read_idx(labels)
    if pixels.shape[1:] != KIND.image_shape[1:]:
        raise InputError(f"{images}: shape {pixels.shape}, expected images of 28 x 28")
    if digits.shape != pixels.shape[:1] or not len(digits):
        raise InputError(f"{labels}: shape {digits.shape} for the {len(pixels):,} of {images.name}")
    if digits.max() > 9:
        raise InputError(f"{labels}: holds label {digits.max()}, expected 0 to 9")
    return Images(pixels[:, None], digits)


def read_idx(path: Path) -> NDArray[np.uint8]:
    """The array of bytes in an idx file, gzipped or plain; InputError where it is not one.

    idx: two zero bytes, the type (8: unsigned bytes), the number of dimensions, each dimension as
    a big-endian 32-bit number, then the elements.
    """
    raw = path.read_bytes()
    if raw[:2] == b"\x1f\x8b":
        try:
            raw = gzip.decompress(raw)
        except (EOFError, OSError, zlib.error) as error:
            raise InputError(f"{path}: not a whole gzip file ({error})") from None
    if len(raw) < 4 or raw[:3] != b"\0\0\x08":
        raise InputError(f"{path}: not an idx file of unsigned bytes")
    header = 4 + 4 * raw[3]
    shape = tuple(np.frombuffer(raw[4:header], ">u4").tolist()) if len(raw) >= header else ()
    # A bytearray, so that the array is writable as those of the other readers are.
    elements = np.frombuffer(bytearray(memoryview(raw)[header:]), np.uint8)
    if not shape or len(elements) != int(np.prod(shape, dtype=object)):
        raise InputError(f"{path}: {len(elements):,} elements do not fill the shape {shape}")
    return elements.reshape(shape)
