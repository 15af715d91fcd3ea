"""Test error of a packed network, without torch."""

import time
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnnrun.config import EvalConfig, PackedConfig, computed
from bnnrun.data import describe, load_test
from bnnrun.data.dataset import ImageSpec, TestSet
from bnnrun.errors import InputError, listed, printable
from bnnrun.records import Record, Run
from bnnrun.runtime import Classifier, file, load
from bnnrun.runtime.classifier import ImageClassifier
from bnnrun.runtime.onnx_file import OnnxClassifier

Pixels = NDArray[np.uint8]
BATCH = 1000  # images of a call of `predict`


def open_model(config: PackedConfig) -> tuple[Classifier | OnnxClassifier, Path]:
    """The network that a configuration names, and its file."""
    path = file.find(config.model)
    kernel, first_layer, device = config.kernel.value, config.first_layer.value, config.device.value
    return load(path, kernel, first_layer, config.threads, device), path


def test_images(config: EvalConfig, source: dict[str, str], expected: ImageSpec) -> TestSet:
    """The test images of a configuration's data set; a note if the training had others.

    Args:
        source:   what the network was packed from (`PackedModel.source`); old files lack keys
        expected: shape and classes of the images that the network takes

    Raises:
        InputError: the network was trained on another data set, or on other classes
    """
    dataset = config.dataset
    if source.get("dataset", dataset.name) != dataset.name:
        raise InputError(
            f"dataset={dataset.name}: the network was trained on {source['dataset']}: add "
            f"dataset={source['dataset']}"
        )
    _check_spec(dataset.name, describe(dataset), expected)
    test = load_test(dataset)
    notes = (*test.notes, *_other_images(test, source))
    return replace(test, notes=notes)


def _check_spec(name: str, spec: ImageSpec, expected: ImageSpec) -> None:
    """Raise InputError unless images and classes are those that a network takes."""
    if (spec.image_shape, spec.max_pixel) != (expected.image_shape, expected.max_pixel):
        raise InputError(
            f"dataset={name}: images of {spec.image_shape}, pixels to {spec.max_pixel}; the "
            f"network takes {expected.image_shape} and {expected.max_pixel}"
        )
    ours, its = map(_composed, (spec.classes, expected.classes))
    if ours == its:
        return
    missing = [c for c in its if c not in ours]
    unknown = [c for c in ours if c not in its]
    differences = [f"without {listed(map(printable, missing))}"] if missing else []
    differences += [f"with {listed(map(printable, unknown))}, unknown to it"] if unknown else []
    if not differences:
        differences = [f"in another order: {listed(map(printable, ours))}; "
                f"its own: {listed(map(printable, its))}"]  # fmt: skip
    raise InputError(
        f"dataset={name}: {len(ours)} classes, not the network's {len(its)}: "
        f"{' and '.join(differences)}"
    )


def _composed(classes: tuple[str, ...]) -> list[str]:
    """Names in Unicode NFC: the file systems of some machines decompose letters."""
    return [unicodedata.normalize("NFC", name) for name in classes]


def _other_images(test: TestSet, source: dict[str, str]) -> Iterator[str]:
    """A note if the test images are not those of the network's training run."""
    then = source.get("test_images"), source.get("test_md5")
    now = str(len(test.test)), test.part_md5.get("test")
    if None not in then and then != now:
        yield (
            f"other test images than the training's: {now[0]} images with md5 {now[1]} here, "
            f"{then[0]} with md5 {then[1]} then"
        )


def evaluate_file(
    config: EvalConfig,
    run: Run,
    opened: tuple[ImageClassifier, Path],
    dataset: TestSet,
    verified: Any,
) -> Record:
    """The test error of a packed network, or of an ONNX file.

    Args:
        opened:   from `open_model`
        verified: what `--verify` compared, by number, for the record; or None
    """
    classifier, path = opened
    details = {
        **classifier.described(),
        "file": path.name,
        f"{classifier.form}_bytes": path.stat().st_size,
        "sha256": file.sha256(path),
        "trained": classifier.source,
        "verified": verified,
        "threads": classifier.threads,
    }
    seed = int(classifier.source.get("seed", 0))
    why = f" ({classifier.why_not_gpu})" if classifier.why_not_gpu else ""
    print(f"{path}: {classifier.runtime}, on {classifier.device}{why}")
    return measure_error(
        config,
        run,
        classifier.predict,
        dataset,
        (f"{classifier.form}_test_error", seed, details),
        device=classifier.device,
        gpu=classifier.gpu,
    )


def measure_error(
    config: EvalConfig,
    run: Run,
    predict: Callable[[Pixels], NDArray[np.intp]],
    dataset: TestSet,
    measurement: tuple[str, int, dict[str, Any]],
    *,
    device: str = "cpu",
    gpu: dict[str, Any] | None = None,
) -> Record:
    """The share of wrong answers over the test images, shown and as a record.

    Args:
        measurement: quantity, seed and details of the record
    """
    images, (quantity, seed, details) = dataset.test, measurement
    wrong, began = 0, time.perf_counter()
    for start in range(0, len(images), BATCH):
        part = images.take(slice(start, start + BATCH))
        wrong += int(np.count_nonzero(predict(part.pixels) != part.labels))
    time_s = time.perf_counter() - began
    error_pct = 100 * wrong / len(images)
    for note in dataset.notes:
        print(f"note: {note}")
    print(
        f"test error {error_pct:.2f} % ({wrong:,} of {len(images):,}), "
        f"{len(images) / time_s:,.0f} images/s"
    )
    return Record(
        experiment=run.experiment,
        cell="",
        quantity=quantity,
        value=error_pct,
        unit="%",
        seed=seed,
        device=device,
        details={"images": len(images), "images_per_s": len(images) / time_s, **details},
        config=computed(config),
        command=run.command,
        data=dataset.described(),
        wall_time_s=time_s,
        gpu=gpu,
    )
