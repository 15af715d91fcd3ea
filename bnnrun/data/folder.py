"""A user's own images: PATH/CLASS/*.png, or such folders in PATH/train, val and test."""

import hashlib
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from bnnrun.config import FolderConfig
from bnnrun.data.dataset import Dataset, Images, ImageSpec, Source, TestSet
from bnnrun.data.decode import Shape, decode, read_bytes
from bnnrun.data.folder_layout import PARTS, Layout, find_layout, meant
from bnnrun.data.folder_split import split_class
from bnnrun.data.image_files import SUFFIXES, Listing, find_images, sort_key
from bnnrun.data.published import refuse_holdout
from bnnrun.errors import InputError, listed, printable

MAX_PIXEL = 255
FEW = 10  # classes whose counts are told one by one


def describe(config: FolderConfig) -> ImageSpec:
    """Shape by the configuration, classes by the names of the folders."""
    return ImageSpec(_shape(config), find_layout(config.path).classes, MAX_PIXEL)


def read(config: FolderConfig) -> Dataset:
    """Every image, resized; what has no folder of its own is split off the training images.

    About dataset.test_share and dataset.valid_share of each class, by the images' names: the split
    belongs to the data set and does not follow the seed of a run.
    """
    division = _divide(config, PARTS)
    parts, sources = _read_parts(division)
    return Dataset(
        name=config.name,
        spec=division.spec,
        train=parts["train"],
        valid=parts["valid"],
        test=parts["test"],
        sources=sources,
        notes=division.notes,
    )


def read_test(config: FolderConfig) -> TestSet:
    """The test part alone; of the others at most the names are read, to split it off."""
    division = _divide(config, ("test",))
    parts, sources = _read_parts(division)
    return TestSet(
        name=config.name,
        spec=division.spec,
        test=parts["test"],
        sources=sources,
        notes=division.notes,
    )


@dataclass(frozen=True)
class _Image:
    """An image file: its name within PATH (`sort_key`), and its class."""

    key: bytes
    path: Path
    label: int


@dataclass(frozen=True)
class _Division:
    """Which images belong to which part, before any is read.

    Attributes:
        root: the name of PATH
    """

    root: str
    spec: ImageSpec
    files: dict[str, list[_Image]]
    notes: tuple[str, ...] = ()


def _divide(config: FolderConfig, wanted: tuple[str, ...]) -> _Division:
    """The images of the parts that are wanted, and what a user should know of them."""
    _check_settings(config)
    layout = find_layout(config.path)
    spec = ImageSpec(_shape(config), layout.classes, MAX_PIXEL)
    absent = [part for part in wanted if part not in layout.parts]
    if absent and "train" not in layout.parts:
        raise InputError(
            f"{printable(layout.root)}: no folder {absent[0]} in it, and no train to split it off; "
            f"it holds {listed(layout.parts)}"
        )
    listing = Listing()
    listing.update(layout.loose)
    listed_parts = {"train", *wanted} if absent else set(wanted)
    files = {
        part: _list_part(layout, part, listing)
        for part in PARTS
        if part in layout.parts and part in listed_parts
    }
    split = _split_off(config, layout, files) if absent else {}
    for part in wanted:
        if not files[part]:
            raise InputError(
                f"{printable(layout.root)}: no image left for {part}; add images, or change "
                "dataset.test_share and dataset.valid_share"
            )
    division = _Division(
        printable(layout.root.resolve().name), spec, {part: files[part] for part in wanted}
    )
    split_notes = [note for part in reversed(wanted) for note in split.get(part, [])]
    notes = [*_counts(division), *split_notes, *layout.notes, *_left_out(listing)]
    return replace(division, notes=tuple(notes))


def _check_settings(config: FolderConfig) -> None:
    """InputError where settings are given that have a meaning for published data sets alone."""
    refuse_holdout(config, "splits off dataset.test_share, or takes its folder `test`")
    if config.validation:
        raise InputError(
            f"dataset.validation={config.validation}: dataset=folder splits off "
            "dataset.valid_share, or takes its folder `val`; leave dataset.validation out"
        )


def _list_part(layout: Layout, part: str, listing: Listing) -> list[_Image]:
    """The images in the folder of a part, class by class, by name; `listing` takes all the files.

    Raises:
        InputError: a class without an image, except one whose folder for a test is empty
    """
    of_part = layout.parts[part]
    classes = {os.path.realpath(folder) for folder in layout.class_folders()}
    seen = {os.path.realpath(p) for p in (layout.root, *(p.folder for p in layout.parts.values()))}
    images, without = [], []
    listing.update(of_part.loose)
    for label, name in enumerate(layout.classes):
        of_class = Listing()
        for folder in of_part.classes.get(name, []):
            of_class.update(find_images(folder, classes, seen))
        if not of_class.images and (part == "train" or of_class.left_out()):
            without.append(f"{printable(name)} ({of_class.left_out() or 'empty'})")
        images += [_Image(sort_key(p, layout.root), p, label) for p in of_class.images]
        listing.update(replace(of_class, images=[]))
    if without:
        raise InputError(
            f"{printable(of_part.folder)}: no image in {listed(without)}; expected "
            f"{' '.join(sorted(SUFFIXES))} in every class: convert them, or move the folder away"
            f"{meant(of_part.folder)}"
        )
    return sorted(images, key=lambda image: (image.label, image.key))


def _split_off(
    config: FolderConfig, layout: Layout, files: dict[str, list[_Image]]
) -> dict[str, list[str]]:
    """Move images from train to the parts without a folder; by part how, in lines."""
    shares = {"test": config.test_share, "valid": config.valid_share}
    missing = [part for part in shares if part not in layout.parts]
    notes: dict[str, list[str]] = {}
    for i, part in enumerate(missing):
        of_class: dict[int, list[_Image]] = {}
        for image in files["train"]:
            of_class.setdefault(image.label, []).append(image)
        files["train"], files[part], forced = [], [], []
        for label, images in of_class.items():
            keys = [image.key for image in images]
            split = split_class(keys, part, shares[part], others=len(missing) - i)
            for image, chosen in zip(images, split.chosen, strict=True):
                files[part if chosen else "train"].append(image)
            if split.forced:
                forced.append(printable(layout.classes[label]))
        how = f"{part}: about {shares[part]:g} of each class, split off train by the images' names"
        notes[part] = [how]
        if forced:
            notes[part].append(
                f"{part}: of {listed(forced)} the images nearest to the threshold were moved, as "
                "a part would have had none"
            )
    return notes


def _counts(division: _Division) -> Iterator[str]:
    """How many images of each class there are in each part, and the classes without any."""
    classes = [printable(name) for name in division.spec.classes]
    counts = {part: Counter(i.label for i in files) for part, files in division.files.items()}
    each = ["/".join(str(n[label]) for n in counts.values()) for label in range(len(classes))]
    sums = [sum(n[label] for n in counts.values()) for label in range(len(classes))]
    by_size = sorted(range(len(classes)), key=lambda label: sums[label])
    shown = by_size if len(classes) > FEW else []
    texts = [f"{name} {n}" for name, n in zip(classes, each, strict=True)]
    yield (
        f"read {sum(sums):,} images of {len(classes)} classes ({'/'.join(division.files)}): "
        + (f"from {texts[shown[0]]} to {texts[shown[-1]]}" if shown else ", ".join(texts))
    )
    for part, n in counts.items():
        if without := [name for label, name in enumerate(classes) if not n[label]]:
            yield f"{part}: no image of {listed(without)}"


def _left_out(listing: Listing) -> Iterator[str]:
    """What lies in PATH and was not read, in a line."""
    reasons = [listing.left_out()]
    if images := listing.images:
        first = printable(images[0].name)
        reasons.append(f"images in no folder of a class: {len(images):,} ({first})")
    if links := listing.not_followed:
        reasons.append(
            f"links to folders read elsewhere, or back up: {len(links):,} ({printable(links[0])})"
        )
    if any(reasons):
        yield f"left out: {'; '.join(filter(None, reasons))}"


def _read_parts(division: _Division) -> tuple[dict[str, Images], tuple[Source, ...]]:
    """The pixels of each part, and its checksum."""
    parts, sources = {}, []
    for part, files in division.files.items():
        parts[part], size, md5 = _read(files, division.spec)
        sources.append(Source(f"{division.root}, {part}", size, md5, None, part))
    return parts, tuple(sources)


def _read(files: list[_Image], spec: ImageSpec) -> tuple[Images, int, str]:
    """(images, bytes, MD5 sum) of a part.

    The sum is over class and MD5 sum of each image in their order: the same wherever the part
    lies, and another one wherever training or a test would see another image, class or order.
    """
    pixels = np.empty((len(files), *spec.image_shape), np.uint8)
    size, md5 = 0, hashlib.md5(usedforsecurity=False)
    for i, image in enumerate(files):
        content = read_bytes(image.path)
        size += len(content)
        of_image = hashlib.md5(content, usedforsecurity=False).hexdigest()
        md5.update(f"{spec.classes[image.label]}\0{of_image}\n".encode())
        pixels[i] = decode(content, image.path, spec.image_shape)
    return Images(pixels, np.array([i.label for i in files], np.uint8)), size, md5.hexdigest()


def _shape(config: FolderConfig) -> Shape:
    if config.channels not in (1, 3):
        raise InputError(f"dataset.channels={config.channels}: expected 1 (grey) or 3 (RGB)")
    if len(config.image_size) != 2:
        raise InputError(f"dataset.image_size={config.image_size}: expected [height,width]")
    height, width = config.image_size
    return config.channels, height, width
