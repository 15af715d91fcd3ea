"""What every reader gives: images, labels, their split, and where they came from."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnnrun.config import DatasetConfig
from bnnrun.errors import InputError

OR_HOLD_OUT = "; without it, dataset.holdout_test=N makes a test set of the last N training images"


@dataclass(frozen=True)
class Images:
    """Part of a data set.

    Shapes:
        pixels: (n, channels, height, width) uint8, C-contiguous
        labels: (n,) uint8
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, which: slice | NDArray[np.intp]) -> "Images":
        """The images that an index selects; a slice copies nothing."""
        return Images(self.pixels[which], self.labels[which])


@dataclass(frozen=True)
class Source:
    """A file, or a bundled array, that a data set was read from; for the record.

    Attributes:
        md5:           of what was read
        published_md5: of the published file; None where nothing is published, as of own images
        part:          "train", "valid" or "test" where it is that part and nothing else, as of
                       own images; "" of a published file
        folder:        where it was found, if not where it is looked for first
    """

    name: str
    size: int
    md5: str
    published_md5: str | None
    part: str = ""
    folder: Path | None = None

    @property
    def published_file(self) -> bool:
        """Whether what was read is the published file."""
        return self.md5 == self.published_md5

    def described(self) -> dict[str, Any]:
        """What a record holds of it."""
        return {key: getattr(self, key) for key in ("name", "size", "md5", "published_md5")}


@dataclass(frozen=True)
class ImageSpec:
    """What a network must know of its images.

    Attributes:
        image_shape: (channels, height, width)
        classes:     their names, in the order of the labels
        max_pixel:   the largest pixel value; the smallest is 0
    """

    image_shape: tuple[int, int, int]
    classes: tuple[str, ...]
    max_pixel: int


@dataclass(frozen=True, kw_only=True)
class TestSet:
    """The images that measure a network, and what of the data set was read for them.

    Attributes:
        notes: a line for each way in which this is not the published data set split as the
               authors split it, and what a user should know of own images; records and tables
               show them
    """

    name: str
    spec: ImageSpec
    test: Images
    sources: tuple[Source, ...]
    notes: tuple[str, ...] = ()

    @property
    def verified(self) -> bool:
        """Whether all that was read has its published checksum."""
        return all(source.published_file for source in self.sources)

    @property
    def part_md5(self) -> dict[str, str]:
        """MD5 sums by part, where each part is a source of its own."""
        return {source.part: source.md5 for source in self.sources if source.part}

    @property
    def parts(self) -> dict[str, Images]:
        """The parts that were read, by name."""
        return {"test": self.test}

    def described(self) -> dict[str, Any]:
        """Sizes of the parts, files and notes: what a record holds of the data."""
        return {
            "name": self.name,
            **{name: len(part) for name, part in self.parts.items()},
            "files": [source.described() for source in self.sources],
            "verified": self.verified,
            "notes": list(self.notes),
        }


@dataclass(frozen=True, kw_only=True)
class Dataset(TestSet):
    """Images split in three.

    Training picks the epoch on `valid`; `test` measures the picked network and picks nothing.
    """

    train: Images
    valid: Images

    @property
    def parts(self) -> dict[str, Images]:
        """The parts, by name."""
        return {"train": self.train, "valid": self.valid, "test": self.test}


def split_in_order(
    config: DatasetConfig,
    spec: ImageSpec,
    images: Images,
    test: Images | None,
    sources: tuple[Source, ...],
) -> Dataset:
    """The authors' split of a training set in its published order: the last images validate.

    Args:
        images: the whole training set
        test:   the official test set; None to hold out the last dataset.holdout_test images
    """
    notes: tuple[str, ...] = ()
    held_out = 0 if test is not None else config.holdout_test
    train = len(images) - held_out - config.validation
    check_split(config, len(images), train)
    if test is None:
        test, notes = images.take(slice(len(images) - held_out, None)), (holdout_note(config),)
    return Dataset(
        name=config.name,
        spec=spec,
        train=images.take(slice(train)),
        valid=images.take(slice(train, train + config.validation)),
        test=test,
        sources=sources,
        notes=notes,
    )


def check_split(config: DatasetConfig, total: int, train: int) -> None:
    """InputError where the split leaves no image for training, or none for validation."""
    if config.validation == 0:
        raise InputError("dataset.validation=0: the epoch is picked by validation: give 1 or more")
    if train <= 0:
        asked = f"dataset.validation={config.validation}"
        if config.holdout_test:
            asked += f" and dataset.holdout_test={config.holdout_test}"
        raise InputError(
            f"{asked}: leave nothing of the {total:,} training images of {config.name}; give less"
        )


def holdout_note(config: DatasetConfig) -> str:
    """What a record says of a held-out test set."""
    return (
        f"test set: the last {config.holdout_test:,} images of the training file's order, "
        "held out from train, not the official test set"
    )
