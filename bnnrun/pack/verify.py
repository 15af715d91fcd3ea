"""Verify a packed network: all hidden codes and scores equal those of the trained network."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bnnrun.data.dataset import Images
from bnnrun.errors import InputError, RunError
from bnnrun.files import user_path
from bnnrun.nn.engine import Engine
from bnnrun.nn.network import Network
from bnnrun.nn.quantizers.levels import codes
from bnnrun.pack.convert import trained
from bnnrun.runtime import Classifier
from bnnrun.train import checkpoint

BATCH = 100


def verify(classifier: Classifier, path: Path, images: Images, other: str | None) -> dict[str, int]:
    """Compare a packed network with the one it was packed from, over `images`.

    Args:
        path:  of the packed file
        other: the trained network's file; None: best.pt beside `path`

    Returns:
        {images, hidden_bits, scores}: how many were compared; a code of k bits counts k

    Raises:
        RunError: the first difference, by layer, image, channel and place
    """
    source = user_path(other) if other else path.with_name(checkpoint.BEST)
    network, _ = trained(source)
    shapes = [layer.shape for layer in classifier.model.layers]
    ours, theirs = (
        [(shape.inputs, shape.outputs, shape.weight_bits, shape.output_bits) for shape in each]
        for each in ([block.layer for block in network.blocks], shapes)
    )
    if ours != theirs:
        raise InputError(
            f"trained={source}: another network than {path}: (inputs, outputs, bits of weights and "
            f"of activations) {ours}"
        )
    counts = {"images": len(images), "hidden_bits": 0, "scores": 0}
    step = min(BATCH, classifier.network.chunk)
    for start in range(0, len(images), step):
        part = images.take(slice(start, start + step))
        hidden, scores = classifier.trace(part.pixels)
        expected, expected_scores = _trained_codes(network, part)
        for shape, got, trained_codes in zip(shapes, hidden, expected, strict=False):
            if (at := _first_difference(got, trained_codes)) is not None:
                place = f" at row {at[1]}, column {at[2]}" if shape.is_conv else ""
                what = "bit" if shape.output_bits == 1 else "code"
                raise RunError(
                    f"{path}: {shape.name}, image {start + at[0]}, channel {at[-1]}{place}: {what} "
                    f"{int(got[at])}, the trained network's is {int(trained_codes[at])}"
                )
            counts["hidden_bits"] += got.size * shape.output_bits
        if (at := _first_difference(scores, expected_scores)) is not None:
            raise RunError(
                f"{path}: image {start + at[0]}, score of class {at[1]}: {scores[at]!r}, the "
                f"trained network's is {expected_scores[at]!r}"
            )
        counts["scores"] += scores.size
    return counts


@torch.no_grad()
def _trained_codes(
    network: Network, part: Images
) -> tuple[list[NDArray[Any]], NDArray[np.float64]]:
    """(codes of each hidden layer, channels last; scores) of the trained network's evaluation."""
    *hidden, scores = Engine(network).trace(torch.from_numpy(part.pixels.copy()))
    pairs = zip(network.blocks, hidden, strict=False)
    bits = [codes(y, block.layer.output_bits).movedim(1, -1).numpy() for block, y in pairs]
    return bits, scores.numpy()


def _first_difference(a: NDArray[Any], b: NDArray[Any]) -> tuple[int, ...] | None:
    different = np.argwhere(a != b)
    return tuple(int(i) for i in different[0]) if len(different) else None
