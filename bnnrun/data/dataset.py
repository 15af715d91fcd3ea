"""What every reader gives: images, labels, their split, and where they came from."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bnnrun.errors import InputError


@dataclass(frozen=True)
class Images:
    """Part of a data set.

    Shapes:
        pixels: (n, channels, height, width) uint8
        labels: (n,) uint8
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, which: slice | NDArray[np.intp]) -> "Images":
        """The images that an index selects."""
        return Images(self.pixels[which], self.labels[which])


@dataclass(frozen=True)
class Source:
    """A file, or a bundled array, that a data set was read from; for the record."""

    name: str
    size: int
    md5: str


@dataclass(frozen=True)
class Kind:
    """What a network must know of its images.

    Attributes:
        image_shape: (channels, height, width)
        classes:     their names, in the order of the labels
        levels:      the largest pixel value; the smallest is 0
    """

    image_shape: tuple[int, int, int]
    classes: tuple[str, ...]
    levels: int


@dataclass(frozen=True)
class Dataset:
    """Images split in three.

    Training picks the epoch on `valid`; `test` measures the picked network and picks nothing.
    """

    name: str
    kind: Kind
    train: Images
    valid: Images
    test: Images
    sources: tuple[Source, ...]


@dataclass(frozen=True)
class DataFile:
    """A published file: its path under the data root, MD5 sum and size in bytes."""

    path: str
    md5: str
    size: int


def read_verified(root: Path, file: DataFile) -> bytes:
    """The bytes of a published file; InputError where it is absent, cut short or altered."""
    path = root / file.path
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(
            f"{path}: no such file; expected {file.size:,} bytes with md5 {file.md5}. Put the "
            "published file there, or name the folder of your data: dataset.root=FOLDER"
        ) from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    if len(content) != file.size:
        raise InputError(
            f"{path}: {len(content):,} bytes where the published file has {file.size:,}: "
            "cut short or another file; fetch it again"
        )
    md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if md5 != file.md5:
        raise InputError(f"{path}: altered: md5 {md5}, published {file.md5}; fetch it again")
    return content
