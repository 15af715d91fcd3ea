"""MNIST (LeCun and Cortes): 60,000 + 10,000 digits of 28x28 pixels, from the four idx files."""

import gzip
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bnnrun.data.dataset import DataFile, Dataset, Images, Kind, Source, read_verified
from bnnrun.errors import InputError

FILES = (
    DataFile("MNIST/raw/train-images-idx3-ubyte.gz", "f68b3c2dcbeaaa9fbdd348bbdeb94873", 9912422),
    DataFile("MNIST/raw/train-labels-idx1-ubyte.gz", "d53e105ee54ea40749a09fcbcd1e9432", 28881),
    DataFile("MNIST/raw/t10k-images-idx3-ubyte.gz", "9fb629c4189551a2d022fa330f9573f3", 1648877),
    DataFile("MNIST/raw/t10k-labels-idx1-ubyte.gz", "ec29112dd5afa0611ce80d1b7f02629c", 4542),
)
VALID = 10_000
KIND = Kind(image_shape=(1, 28, 28), classes=tuple("0123456789"), levels=255)


def read(root: Path) -> Dataset:
    """The first 50,000 training images train, the last 10,000 validate, as the authors split."""
    pixels, labels, test_pixels, test_labels = (
        parse_idx(read_verified(root, file), file.path) for file in FILES
    )
    images = Images(pixels[:, None], labels)
    split = len(images) - VALID
    return Dataset(
        name="mnist",
        kind=KIND,
        train=images.take(slice(split)),
        valid=images.take(slice(split, None)),
        test=Images(test_pixels[:, None], test_labels),
        sources=tuple(Source(file.path, file.size, file.md5) for file in FILES),
    )


def parse_idx(content: bytes, name: str) -> NDArray[np.uint8]:
    """The array of bytes in an idx file, gzipped or plain; InputError where it is not one.

    idx: two zero bytes, the type (8: unsigned bytes), the number of dimensions, each dimension as
    a big-endian 32-bit number, then the elements.
    """
    try:
        raw = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
    except (EOFError, OSError, zlib.error) as error:
        raise InputError(f"{name}: not a whole gzip file ({error})") from None
    if len(raw) < 4 or raw[:3] != b"\0\0\x08":
        raise InputError(f"{name}: not an idx file of unsigned bytes")
    dimensions = raw[3]
    shape = tuple(np.frombuffer(raw[4 : 4 + 4 * dimensions], ">u4").tolist())
    elements = raw[4 + 4 * dimensions :]
    if len(shape) != dimensions or len(elements) != int(np.prod(shape, dtype=np.int64)):
        raise InputError(f"{name}: {len(elements):,} elements do not fill the shape {shape}")
    return np.frombuffer(elements, np.uint8).reshape(shape)
