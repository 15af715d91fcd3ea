"""The 1,797 handwritten digits of 8x8 pixels, 17 grey levels, that scikit-learn ships.

They need no download: what the demo and the tests train on. They are the test part of the
"Optical Recognition of Handwritten Digits" set (Alpaydin and Kaynak, 1998).
"""

import hashlib
from pathlib import Path

import numpy as np

from bnnrun.data.dataset import DataFile, Dataset, Images, Kind, Source

FILES: tuple[DataFile, ...] = ()  # none under the data root
VALID, TEST = 200, 400
KIND = Kind(image_shape=(1, 8, 8), classes=tuple("0123456789"), levels=16)


def read(root: Path) -> Dataset:
    """1,197 for training, 200 for validation, 400 for the test; `root` is not looked at.

    The file lists its writers one after the other, so its order is shuffled first, always alike:
    the split is part of the data set and does not follow the seed of a run.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    order = np.random.default_rng(0).permutation(len(bunch.target))
    pixels = bunch.images.astype(np.uint8)[order][:, None]
    labels = bunch.target.astype(np.uint8)[order]
    images = Images(np.ascontiguousarray(pixels), labels)
    content = bunch.images.astype(np.uint8).tobytes() + bunch.target.astype(np.uint8).tobytes()
    md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
    train = len(labels) - VALID - TEST
    return Dataset(
        name="digits",
        kind=KIND,
        train=images.take(slice(train)),
        valid=images.take(slice(train, train + VALID)),
        test=images.take(slice(train + VALID, None)),
        sources=(Source("sklearn.datasets.load_digits", len(content), md5),),
    )
