"""The 1,797 handwritten digits of 8x8 pixels, 17 grey levels, that scikit-learn ships.

They need no download: what the demo and the tests train on. They are the test part of the
"Optical Recognition of Handwritten Digits" set (Alpaydin and Kaynak, 1998).
"""

import gzip
import hashlib
import zlib
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from bnnrun.config import DatasetConfig, Verify
from bnnrun.data.dataset import Dataset, Images, ImageSpec, Source, TestSet, split_in_order
from bnnrun.data.published import DataFile, altered, refuse_holdout
from bnnrun.errors import InputError

FILES: tuple[DataFile, ...] = ()  # none under the data root
MD5 = "7696c07daa6d85010f8268703ab8b067"  # of pixels, then labels, as bytes
TEST = 400
SPEC = ImageSpec(image_shape=(1, 8, 8), classes=tuple("0123456789"), max_pixel=16)


def describe(config: DatasetConfig) -> ImageSpec:
    """Shape, classes and largest pixel value."""
    return SPEC


def read(config: DatasetConfig) -> Dataset:
    """The last 400 test, the 200 (dataset.validation) before them validate, the others train.

    The file lists its writers one after the other, so its order is shuffled first, always alike:
    the split is part of the data set and does not follow the seed of a run.
    """
    refuse_holdout(config, "has a test set")
    pixels, labels = _bundled()
    order = np.random.default_rng(0).permutation(len(labels))
    content = pixels.tobytes() + labels.tobytes()
    md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
    source = Source("sklearn.datasets.load_digits", len(content), md5, MD5)
    if config.verify is Verify.strict and not source.published_file:
        raise InputError(f"{source.name}: {altered(source)}; dataset.verify=warn reads it as it is")
    images = Images(pixels[order][:, None], labels[order])
    test = len(images) - TEST
    return split_in_order(
        config, SPEC, images.take(slice(test)), images.take(slice(test, None)), (source,)
    )


def read_test(config: DatasetConfig) -> TestSet:
    """The test part; all digits are one array."""
    return read(config)


def _bundled() -> tuple[np.ndarray, np.ndarray]:
    """(pixels, labels) as `sklearn.datasets.load_digits` has them.

    Read from its file: importing scikit-learn would take a second of each run's start.

    Shapes:
        pixels: (1797, 8, 8) uint8 in [0, 16]
        labels: (1797,) uint8
    """
    package = find_spec("sklearn")
    if package is None or package.origin is None:
        raise InputError("dataset=digits: scikit-learn, which ships them, is not installed")
    path = Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz"
    try:
        with gzip.open(path, "rt", encoding="ascii") as file:
            rows = np.loadtxt(file, np.uint8, delimiter=",")
        pixels, labels = rows[:, :-1].reshape(-1, 8, 8), rows[:, -1]
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); install scikit-learn again") from None
    return np.ascontiguousarray(pixels), np.ascontiguousarray(labels)
