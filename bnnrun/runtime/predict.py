"""`bnnrun predict`: class and scores of image files."""

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bnnrun.config import PredictConfig
from bnnrun.data.decode import read_image
from bnnrun.data.image_files import SUFFIXES, find_images
from bnnrun.errors import InputError, printable
from bnnrun.runtime.evaluate import open_model, why_not_gpu
from bnnrun.table import print_table


def predict(config: PredictConfig) -> None:
    """Print a row an image: its class, the score, and how far the next one is behind."""
    if not config.images:
        raise InputError("images=[]: name image files: `bnnrun predict model=FILE a.png b.png`")
    classifier, _ = open_model(config)
    paths = [path for name in config.images for path in _files(Path(name).expanduser())]
    shape = classifier.image_shape
    if shape[0] not in (1, 3):
        raise InputError(f"{config.model}: takes images of {shape[0]} channels, not grey or RGB")
    pixels = np.stack([read_image(path, shape) for path in paths])
    scores = classifier.scores(_to_levels(pixels, classifier.levels))
    columns = ["image", "class", "score", "next", "its score"]
    rows = []
    for path, each in zip(paths, scores, strict=True):
        order = np.argsort(-each, kind="stable")
        best, second = order[0], order[1] if len(order) > 1 else order[0]
        names = classifier.classes
        rows.append(
            [
                printable(path),
                names[best],
                f"{each[best]:.3f}",
                names[second],
                f"{each[second]:.3f}",
            ]
        )
    if why := why_not_gpu(config):
        print(f"on the processor{why}", file=sys.stderr)
    print_table(columns, rows, format=config.format)


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise InputError(f"{printable(path)}: no such image file or folder")
    found = find_images(path)
    if not found.images:
        left_out = f"; it holds {found.left_out()}" if found.left_out() else ""
        raise InputError(
            f"{printable(path)}: no image in this folder ({', '.join(sorted(SUFFIXES))}){left_out}"
        )
    return found.images


def _to_levels(pixels: NDArray[np.uint8], levels: int) -> NDArray[np.uint8]:
    """8-bit pixels in the range of the images that the network was trained on."""
    if levels == 255:
        return pixels
    return np.rint(pixels.astype(np.float64) * levels / 255).astype(np.uint8)
