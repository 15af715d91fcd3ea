"""Verify an exported ONNX file: all its scores equal those of the packed network. No torch."""

from pathlib import Path

import numpy as np

from bnnrun.data.dataset import Images
from bnnrun.errors import InputError, RunError
from bnnrun.runtime import file, load
from bnnrun.runtime.onnx_file import OnnxClassifier

BATCH = 1000


def verify_onnx(
    classifier: OnnxClassifier, path: Path, images: Images, packed: str | None
) -> dict[str, int]:
    """Compare an ONNX file with the packed network that it was exported from, over `images`.

    Args:
        path:   of the ONNX file
        packed: the packed file; None: the one beside `path`

    Returns:
        {images, scores}: how many were compared

    Raises:
        InputError: no packed file of the checksum that the ONNX file tells
        RunError:   the first score that differs
    """
    network = load(_packed_file(classifier, path, packed), threads=classifier.threads)
    if network.spec != classifier.spec:
        raise RunError(f"{path}: other images or classes than the packed network's")
    for start in range(0, len(images), BATCH):
        pixels = images.pixels[start : start + BATCH]
        scores, expected = classifier.scores(pixels), network.scores(pixels)
        different = np.argwhere(scores != expected)
        if len(different):
            i, c = (int(index) for index in different[0])
            raise RunError(
                f"{path}: image {start + i}, score of class {c}: {scores[i, c]!r}, the packed "
                f"network's is {expected[i, c]!r}"
            )
    return {"images": len(images), "scores": len(images) * len(classifier.classes)}


def _packed_file(classifier: OnnxClassifier, path: Path, packed: str | None) -> Path:
    """The packed file that is named, or one beside the ONNX file; its checksum is the right one."""
    beside = [path.with_suffix(".safetensors"), path.with_name(file.NAME)]
    candidates = [file.find(packed)] if packed else [p for p in beside if p.is_file()]
    for candidate in candidates:
        if candidate.is_file() and file.sha256(candidate) == classifier.packed_sha256:
            return candidate
    digest = f"of sha256 {classifier.packed_sha256[:12]}..., which {path} was exported from"
    if packed:
        raise InputError(f"trained={packed}: not the packed file {digest}")
    raise InputError(
        f"{path}: neither {beside[0].name} nor {beside[1].name} beside it is the packed file "
        f"{digest}; name it: trained=FILE"
    )
