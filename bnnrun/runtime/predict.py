"""`bnnrun predict`: class and scores of image files."""

import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bnnrun.config import PredictConfig
from bnnrun.data.decode import read_image
from bnnrun.data.image_files import SUFFIXES, find_images
from bnnrun.errors import InputError, RunError, printable
from bnnrun.files import user_path
from bnnrun.runtime.classifier import ImageClassifier
from bnnrun.runtime.evaluate import open_model
from bnnrun.table import print_table

BATCH = 100  # images in memory at a time
SHOWN_FROM = 200  # images, a few seconds: fewer need no bar
COLUMNS = ["image", "class", "score", "next", "its score"]


def predict(config: PredictConfig) -> None:
    """Print a row an image: its class and score, and the second class and its score.

    Files that cannot be read are named on stderr, a line each; the others are classified.

    Raises:
        InputError: none of the images can be read
        RunError:   some of them cannot
    """
    if not config.images:
        raise InputError("images=[]: name image files: `bnnrun predict model=FILE a.png b.png`")
    classifier, _ = open_model(config)
    shape = classifier.image_shape
    if shape[0] not in (1, 3):
        raise InputError(f"{config.model}: takes images of {shape[0]} channels, not grey or RGB")
    faults: list[str] = []
    paths = _find(config.images, faults)
    rows = []
    if paths:
        classifier.compile()
    for path, scores in _scores(classifier, _progress(paths), faults):
        rows.append(_row(path, scores, classifier.classes))
    if rows and classifier.why_not_gpu:
        print(f"on the processor ({classifier.why_not_gpu})", file=sys.stderr)
    if not rows and len(faults) == 1:
        raise InputError(faults[0])
    for fault in faults:
        print(f"bnnrun: {fault}", file=sys.stderr)
    if not rows:
        raise InputError(f"images: none of the {len(faults):,} can be read")
    print_table(COLUMNS, rows, format=config.format)
    if faults:
        raise RunError(f"images: {len(faults):,} of {len(faults) + len(rows):,} cannot be read")


def _find(names: list[str], faults: list[str]) -> list[Path]:
    """The image files among `names`, and those in its folders; adds a fault for any other name."""
    paths: list[Path] = []
    for name in names:
        path = user_path(name)
        try:
            if name and path.is_file():
                paths.append(path)
            elif name and path.is_dir():
                paths += _in_folder(path, faults)
            else:
                faults.append(f"{printable(name) or repr(name)}: no such image file or folder")
        except OSError as error:  # a name too long, a folder that may not be looked into
            faults.append(f"{printable(name)}: cannot be read ({error.strerror})")
    return paths


def _in_folder(folder: Path, faults: list[str]) -> list[Path]:
    before = len(faults)
    listing = find_images(folder, faults=faults)
    if not listing.images and len(faults) == before:
        left_out = f"; it holds {listing.left_out()}" if listing.left_out() else ""
        suffixes = ", ".join(sorted(SUFFIXES))
        faults.append(f"{printable(folder)}: no image in this folder ({suffixes}){left_out}")
    return listing.images


def _scores(
    classifier: ImageClassifier, paths: Iterator[Path], faults: list[str]
) -> Iterator[tuple[Path, NDArray[np.float64]]]:
    """(path, scores) of every image that can be read; appends a fault for any other."""
    while batch := list(islice(paths, BATCH)):
        read, pixels = [], []
        for path in batch:
            try:
                pixels.append(read_image(path, classifier.image_shape))
                read.append(path)
            except InputError as error:
                faults.append(str(error))
        if read:
            scores = classifier.scores(_to_pixel_range(np.stack(pixels), classifier.max_pixel))
            yield from zip(read, scores, strict=True)


def _row(path: Path, scores: NDArray[np.float64], names: tuple[str, ...]) -> list[str]:
    order = np.argsort(-scores, kind="stable")
    best, second = order[0], order[1] if len(order) > 1 else order[0]
    return [
        printable(path), names[best], f"{scores[best]:.3f}", names[second], f"{scores[second]:.3f}",
    ]  # fmt: skip


def _progress(paths: list[Path]) -> Iterator[Path]:
    """The paths, with a progress bar on a terminal if there are many."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    if len(paths) < SHOWN_FROM or not console.is_terminal:
        return iter(paths)
    return iter(track(paths, "reading images", console=console, transient=True))


def _to_pixel_range(pixels: NDArray[np.uint8], max_pixel: int) -> NDArray[np.uint8]:
    """Scale 8-bit pixels to 0 .. max_pixel, as the network's training images have."""
    if max_pixel == 255:
        return pixels
    return np.rint(pixels.astype(np.float64) * max_pixel / 255).astype(np.uint8)
