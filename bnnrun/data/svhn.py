"""SVHN (Netzer et al., 2011), cropped: colour digits of 32x32, from the three MATLAB files."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnnrun.config import DatasetConfig, SvhnConfig
from bnnrun.data.dataset import (
    OR_HOLD_OUT,
    Dataset,
    Images,
    ImageSpec,
    TestSet,
    check_split,
    holdout_note,
)
from bnnrun.data.published import DataFile, check_file, holds_out_test, locate
from bnnrun.errors import InputError

TRAIN = DataFile("svhn/train_32x32.mat", "e26dedcc434d2e4c54c9b2d4a06d8373", 182040794)
TEST = DataFile("svhn/test_32x32.mat", "eb5a983be6a315427106f1b164d9cef3", 64275384)
EXTRA = DataFile(
    "svhn/extra_32x32.mat", "a93ce644f1a588dc4d68dda5feec44a7", 1329278602, optional=True
)
FILES = (TRAIN, TEST, EXTRA)
SPEC = ImageSpec(image_shape=(3, 32, 32), classes=tuple("0123456789"), max_pixel=255)
BLOCK = 8192  # images turned at once; bounds the memory beside the result


def describe(config: DatasetConfig) -> ImageSpec:
    """Shape, classes and largest pixel value."""
    return SPEC


def read(config: SvhnConfig) -> Dataset:
    """400 of each class of train and 200 of each class of extra validate, the others train.

    They are the first of their class in the file's order. The authors' script (pylearn2's SVHN)
    samples them with a seeded generator of Python 2; the order of the file is the same everywhere,
    and keeps the neighbouring digits of one house on one side of the split. A test set that is
    held out leaves the training file before validation is chosen. Without extra, which is most of
    the paper's training images, a note says so.
    """
    held_out = holds_out_test(config, [TEST])
    has_extra = locate(config.root, EXTRA)[0].is_file()
    sources = [check_file(config, TRAIN)]
    sources += [] if held_out else [check_file(config, TEST, OR_HOLD_OUT)]
    sources += [check_file(config, EXTRA)] if has_extra else []
    shares = [_divide_train(config, config.holdout_test if held_out else 0)]
    shares += [_divide_extra(config)] if has_extra else []
    if not held_out:
        shares.append(_all_test(config))
    train, valid, test = _gather(shares)
    notes = [holdout_note(config)] if held_out else []
    if not has_extra:
        notes.append(f"{EXTRA.path} is not there: trained on the rest of the training file alone")
    return Dataset(
        name=config.name,
        spec=SPEC,
        train=train,
        valid=valid,
        test=test,
        sources=tuple(sources),
        notes=tuple(notes),
    )


def read_test(config: SvhnConfig) -> TestSet:
    """The official test set, or the images that are held out of the training file."""
    held_out = holds_out_test(config, [TEST])
    source = check_file(config, TRAIN) if held_out else check_file(config, TEST, OR_HOLD_OUT)
    share = _divide_train(config, config.holdout_test) if held_out else _all_test(config)
    share = replace(share, train=NONE, valid=NONE)
    return TestSet(
        name=config.name,
        spec=SPEC,
        test=_gather([share])[2],
        sources=(source,),
        notes=(holdout_note(config),) if held_out else (),
    )


@dataclass(frozen=True)
class _Share:
    """Which images of a file train, validate and test.

    Known from the labels alone, so that the pixels (1.6 GB of extra) are then read once, straight
    into their place.
    """

    path: Path
    labels: NDArray[np.uint8]
    train: NDArray[np.intp]
    valid: NDArray[np.intp]
    test: NDArray[np.intp]


NONE: NDArray[np.intp] = np.empty(0, np.intp)


def _divide_train(config: SvhnConfig, held_out: int) -> _Share:
    path, _ = locate(config.root, TRAIN)
    labels = _read_labels(path)
    rest = len(labels) - held_out
    check_split(config, len(labels), rest)
    valid, train = _per_class(labels[:rest], path, "validation", config.validation)
    check_split(config, len(labels), len(train))
    return _Share(path, labels, train, valid, np.arange(rest, len(labels)))


def _divide_extra(config: SvhnConfig) -> _Share:
    path, _ = locate(config.root, EXTRA)
    labels = _read_labels(path)
    valid, train = _per_class(labels, path, "validation_extra", config.validation_extra)
    return _Share(path, labels, train, valid, NONE)


def _all_test(config: SvhnConfig) -> _Share:
    path, _ = locate(config.root, TEST)
    labels = _read_labels(path)
    return _Share(path, labels, NONE, NONE, np.arange(len(labels)))


def _gather(shares: list[_Share]) -> tuple[Images, Images, Images]:
    """(train, valid, test), file by file."""
    train = _Buffer(sum(len(share.train) for share in shares))
    valid = _Buffer(sum(len(share.valid) for share in shares))
    test = _Buffer(sum(len(share.test) for share in shares))
    for share in shares:
        pixels = _read_pixels(share.path, len(share.labels))
        train.take(pixels, share.labels, share.train)
        valid.take(pixels, share.labels, share.valid)
        test.take(pixels, share.labels, share.test)
        del pixels  # before the next file's are read
    return train.images, valid.images, test.images


def _per_class(
    labels: NDArray[np.uint8], path: Path, key: str, count: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """(the first `count` of each class, the others), both in the file's order."""
    chosen = np.zeros(len(labels), bool)
    for label in range(len(SPEC.classes)):
        of_class = np.flatnonzero(labels == label)
        if len(of_class) < count:
            raise InputError(
                f"{path}: {len(of_class):,} images of the digit {label} to choose from, "
                f"{count} of each class are to validate; give a smaller dataset.{key}"
            )
        chosen[of_class[:count]] = True
    return np.flatnonzero(chosen), np.flatnonzero(~chosen)


class _Buffer:
    """Images of known number, filled file by file."""

    def __init__(self, count: int) -> None:
        self.images = Images(
            np.empty((count, *SPEC.image_shape), np.uint8), np.empty(count, np.uint8)
        )
        self.filled = 0

    def take(
        self, pixels: NDArray[np.uint8], labels: NDArray[np.uint8], which: NDArray[np.intp]
    ) -> None:
        """Append the images that `which` selects, BLOCK at a time."""
        for start in range(0, len(which), BLOCK):
            block = which[start : start + BLOCK]
            place = slice(self.filled, self.filled + len(block))
            self.images.pixels[place] = pixels[block]
            self.images.labels[place] = labels[block]
            self.filled = place.stop


def _read_labels(path: Path) -> NDArray[np.uint8]:
    """(n,) uint8; the files call the digit 0 class 10. MATLAB saves integers as float64."""
    y = _load(path, "y")
    are_integers = y.dtype.kind in "ui" or (y.dtype.kind == "f" and bool((y == np.floor(y)).all()))
    if not are_integers or y.ndim != 2 or y.shape[1] != 1 or not len(y):
        raise InputError(f"{path}: y is {y.dtype} {y.shape}, expected a column of integers")
    if y.min() < 1 or y.max() > 10:
        raise InputError(
            f"{path}: y holds {y.min():g} to {y.max():g}, expected labels from 1 to 10"
        )
    return (y[:, 0] % 10).astype(np.uint8)


def _read_pixels(path: Path, count: int) -> NDArray[np.uint8]:
    """A view (n, 3, 32, 32) of X, which is (row, column, colour, image) in MATLAB's order."""
    x = _load(path, "X")
    if x.dtype != np.uint8 or x.shape != (32, 32, 3, count):
        raise InputError(f"{path}: X is {x.dtype} {x.shape}, expected uint8 (32, 32, 3, {count})")
    return x.transpose(3, 2, 0, 1)


def _load(path: Path, name: str) -> NDArray[Any]:
    """One variable of a MATLAB file."""
    from scipy.io import loadmat

    try:
        content = loadmat(path, variable_names=(name,))
    except Exception as error:  # SciPy raises many kinds over a damaged file
        line = " ".join(str(error).split())
        raise InputError(
            f"{path}: not a whole MATLAB file ({type(error).__name__}: {line})"
        ) from None
    if not isinstance(content.get(name), np.ndarray):
        raise InputError(f"{path}: no variable {name}; expected X (images) and y (labels)")
    value: NDArray[Any] = content[name]
    return value
