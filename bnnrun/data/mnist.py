"""MNIST (LeCun and Cortes): 60,000 + 10,000 digits of 28x28 pixels, from the four idx files."""

import gzip
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bnnrun.config import DatasetConfig
from bnnrun.data.dataset import OR_HOLD_OUT, Dataset, Images, ImageSpec, TestSet, split_in_order
from bnnrun.data.published import DataFile, check_file, holds_out_test, locate
from bnnrun.errors import InputError


def _published(name: str, gzipped: tuple[str, int], plain: tuple[str, int]) -> DataFile:
    """A gzipped file by its (MD5 sum, bytes), and the unpacked one that torchvision leaves.

    The archive of 1998 has a dot before idx, which some unpackers and mirrors keep.
    """
    dotted = name.replace("-idx", ".idx")
    return DataFile(
        f"MNIST/raw/{name}.gz",
        *gzipped,
        also=(
            DataFile(f"MNIST/raw/{name}", *plain),
            DataFile(f"MNIST/raw/{dotted}.gz", *gzipped),
            DataFile(f"MNIST/raw/{dotted}", *plain),
        ),
    )


TRAIN = (
    _published(
        "train-images-idx3-ubyte",
        ("f68b3c2dcbeaaa9fbdd348bbdeb94873", 9912422),
        ("6bbc9ace898e44ae57da46a324031adb", 47040016),
    ),
    _published(
        "train-labels-idx1-ubyte",
        ("d53e105ee54ea40749a09fcbcd1e9432", 28881),
        ("a25bea736e30d166cdddb491f175f624", 60008),
    ),
)
TEST = (
    _published(
        "t10k-images-idx3-ubyte",
        ("9fb629c4189551a2d022fa330f9573f3", 1648877),
        ("2646ac647ad5339dbf082846283269ea", 7840016),
    ),
    _published(
        "t10k-labels-idx1-ubyte",
        ("ec29112dd5afa0611ce80d1b7f02629c", 4542),
        ("27ae3e4e09519cfbb04c329615203637", 10008),
    ),
)
FILES = (*TRAIN, *TEST)
SPEC = ImageSpec(image_shape=(1, 28, 28), classes=tuple("0123456789"), max_pixel=255)


def describe(config: DatasetConfig) -> ImageSpec:
    """Shape, classes and largest pixel value."""
    return SPEC


def read(config: DatasetConfig) -> Dataset:
    """The first 50,000 training images train, the last 10,000 validate, as the authors split."""
    held_out = holds_out_test(config, TEST)
    sources = [check_file(config, file) for file in TRAIN]
    if not held_out:
        sources += [check_file(config, file, OR_HOLD_OUT) for file in TEST]
    test = None if held_out else _read_pair(config, TEST)
    return split_in_order(config, SPEC, _read_pair(config, TRAIN), test, tuple(sources))


def read_test(config: DatasetConfig) -> TestSet:
    """The official test set, or what is held out of the training images."""
    if holds_out_test(config, TEST):
        return read(config)
    sources = [check_file(config, file, OR_HOLD_OUT) for file in TEST]
    test = _read_pair(config, TEST)
    return TestSet(name=config.name, spec=SPEC, test=test, sources=tuple(sources))


def _read_pair(config: DatasetConfig, files: tuple[DataFile, ...]) -> Images:
    """The images of one idx file with the labels of another."""
    images, labels = (locate(config.root, file)[0] for file in files)
    pixels, digits = read_idx(images), read_idx(labels)
    if pixels.shape[1:] != SPEC.image_shape[1:]:
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
