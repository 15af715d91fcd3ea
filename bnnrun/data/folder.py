"""A user's own images: PATH/CLASS/*.png, or such folders in PATH/train, valid and test."""

import hashlib
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bnnrun.config import FolderConfig
from bnnrun.data.dataset import Dataset, Images, Kind, Source
from bnnrun.data.published import refuse_holdout
from bnnrun.errors import InputError
from bnnrun.files import user_path

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".pgm", ".ppm", ".tif", ".tiff", ".webp"}
LEVELS = 255


def describe(config: FolderConfig) -> Kind:
    """Shape by the configuration, classes by the names of the folders."""
    return Kind(_shape(config), _classes(_training_folder(config)), LEVELS)


def read(config: FolderConfig) -> Dataset:
    """Every image, resized; what has no folder of its own is split off the training images.

    The split takes dataset.test_share and dataset.valid_share of each class, drawn by a generator
    of fixed seed: it belongs to the data set and does not follow the seed of a run.
    """
    refuse_holdout(config, "splits off dataset.test_share, or takes its folder `test`")
    if config.validation:
        raise InputError(
            f"dataset.validation={config.validation}: dataset=folder splits off "
            "dataset.valid_share, or takes its folder `valid`; leave dataset.validation out"
        )
    kind, root, notes = describe(config), user_path(config.path), []
    folders = {"train": _training_folder(config)}
    if folders["train"] != root:
        folders |= {p: root / p for p in ("valid", "test") if (root / p).is_dir()}
    files = {part: _files(folder, kind.classes) for part, folder in folders.items()}
    rng = np.random.default_rng(0)
    for part, share in (("test", config.test_share), ("valid", config.valid_share)):
        if part not in files:
            files["train"], files[part] = _split_off(files["train"], share, rng)
            notes.append(f"{part}: {share:g} of each class, split off train by a fixed seed")
    for part, found in files.items():
        if not found:
            raise InputError(
                f"{root}: no image left for {part}; put images into {folders.get(part, root)}, "
                "or change dataset.test_share and dataset.valid_share"
            )
    left_out = sum(1 for folder in folders.values() for _ in _others(folder))
    if left_out:
        notes.append(f"{left_out:,} files that are no images by their suffix were left out")
    digest = _Digest()
    parts = {part: _read(found, kind.image_shape, digest) for part, found in files.items()}
    return Dataset(
        name=config.name,
        kind=kind,
        train=parts["train"],
        valid=parts["valid"],
        test=parts["test"],
        sources=(Source(root.name, digest.size, digest.md5.hexdigest(), None),),
        notes=tuple(notes),
    )


def read_image(path: Path, image_shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """An image file as pixels of a network's shape; InputError where it is none, or damaged."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    return decode(content, path, image_shape)


def decode(content: bytes, path: Path, image_shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """The bytes of an image file, turned upright, made grey or RGB, and resized.

    Shapes:
        returns (channels, height, width) uint8
    """
    from PIL import Image, ImageOps

    channels, height, width = image_shape
    try:
        with Image.open(io.BytesIO(content)) as image:
            image.load()
            upright = ImageOps.exif_transpose(image)
    except Exception as error:  # Pillow's decoders raise many kinds over a damaged file
        # "cannot identify image file <_io.BytesIO object at 0x...>": the end says nothing.
        reason = " ".join(str(error).split()).partition(" <")[0]
        raise InputError(f"{path}: not a whole image ({type(error).__name__}: {reason})") from None
    if upright.mode not in ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"):
        raise InputError(f"{path}: an image of mode {upright.mode}, expected 8 bits a channel")
    # By way of RGB: Pillow resizes palettes and black-and-white by picking pixels, unsmoothed.
    upright = upright.convert("RGBA").convert("L" if channels == 1 else "RGB")
    if upright.size != (width, height):
        upright = upright.resize((width, height), Image.Resampling.BILINEAR)
    pixels = np.asarray(upright, np.uint8).reshape(height, width, channels)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


class _Digest:
    """Size and MD5 sum of the files read, in their order."""

    def __init__(self) -> None:
        self.size, self.md5 = 0, hashlib.md5(usedforsecurity=False)

    def add(self, content: bytes) -> None:
        self.size += len(content)
        self.md5.update(content)


def _read(
    found: list[tuple[Path, int]], image_shape: tuple[int, int, int], digest: _Digest
) -> Images:
    pixels = np.empty((len(found), *image_shape), np.uint8)
    for i, (path, _) in enumerate(found):
        content = path.read_bytes()
        digest.add(content)
        pixels[i] = decode(content, path, image_shape)
    return Images(pixels, np.array([label for _, label in found], np.uint8))


def _shape(config: FolderConfig) -> tuple[int, int, int]:
    if config.channels not in (1, 3):
        raise InputError(f"dataset.channels={config.channels}: expected 1 (grey) or 3 (RGB)")
    if len(config.image_size) != 2:
        raise InputError(f"dataset.image_size={config.image_size}: expected [height,width]")
    height, width = config.image_size
    return config.channels, height, width


def _training_folder(config: FolderConfig) -> Path:
    """PATH/train where there is one with classes in it, else PATH."""
    if not config.path:
        raise InputError(
            "dataset.path: not given; expected the folder of your images, one folder a class in it"
        )
    root = user_path(config.path)
    if not root.is_dir():
        raise InputError(f"dataset.path={config.path}: no such folder; expected PATH/CLASS/*.png")
    return root / "train" if _folders(root / "train") else root


def _folders(path: Path) -> list[str]:
    """Names of the folders in a folder, hidden ones left out."""
    if not path.is_dir():
        return []
    return sorted(p.name for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))


def _classes(folder: Path) -> tuple[str, ...]:
    classes = tuple(_folders(folder))
    if not 2 <= len(classes) <= 256:
        raise InputError(
            f"{folder}: {len(classes)} folders in it, expected one for each class, 2 to 256"
        )
    return classes


def _files(folder: Path, classes: tuple[str, ...]) -> list[tuple[Path, int]]:
    """(image file, label), class by class, by name."""
    for name in _folders(folder):
        if name not in classes:
            raise InputError(
                f"{folder / name}: no such class in train; known: {', '.join(classes)}"
            )
    return [
        (path, label)
        for label, name in enumerate(classes)
        for path in sorted((folder / name).rglob("*"))
        if is_image(path)
    ]


def _others(folder: Path) -> Iterator[Path]:
    """Files in the folders of classes that are not taken for images."""
    for name in _folders(folder):
        for path in (folder / name).rglob("*"):
            if path.is_file() and not is_image(path):
                yield path


def is_image(path: Path) -> bool:
    # Hidden files: macOS puts a "._photo.jpg" of its own beside each photo on a foreign disk.
    suffix = path.suffix.lower()
    return suffix in SUFFIXES and not path.name.startswith(".") and path.is_file()


def _split_off(
    files: list[tuple[Path, int]], share: float, rng: np.random.Generator
) -> tuple[list[tuple[Path, int]], list[tuple[Path, int]]]:
    """(the others, `share` of each class), both in their order."""
    labels = np.array([label for _, label in files])
    chosen = np.zeros(len(files), bool)
    for label in np.unique(labels):
        of_class = np.flatnonzero(labels == label)
        chosen[rng.permutation(of_class)[: round(share * len(of_class))]] = True
    return (
        [file for file, off in zip(files, chosen, strict=True) if not off],
        [file for file, off in zip(files, chosen, strict=True) if off],
    )
