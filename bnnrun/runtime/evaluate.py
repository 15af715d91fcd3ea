"""Test error of a packed network, without torch."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnnrun.config import EvalConfig, Kernel, PackedConfig, computed
from bnnrun.data import load as load_data
from bnnrun.data.dataset import Dataset, Kind
from bnnrun.errors import InputError
from bnnrun.records import Record, Run
from bnnrun.runtime import Classifier, file, load, select_device

Pixels = NDArray[np.uint8]
BATCH = 1000  # images whose answers are counted together


def open_model(config: PackedConfig) -> tuple[Classifier, Path]:
    """The packed network that a configuration names, and its file."""
    path = file.find(config.model)
    device, _ = select_device(config.device, config.kernel)
    kernel, first = config.kernel.value, config.first.value
    return load(path, kernel, first, config.threads, device.value), path


def why_not_gpu(config: PackedConfig) -> str:
    """What is missing for a GPU that would have been used, in brackets; nothing where none is."""
    _, why = select_device(config.device, config.kernel)
    return f" ({why})" if why else ""


def test_images(config: EvalConfig, trained_on: str | None, expected: Kind) -> Dataset:
    """The data set of a configuration; InputError where the network is of another."""
    if trained_on is not None and trained_on != config.dataset.name:
        raise InputError(
            f"dataset={config.dataset.name}: the network was trained on {trained_on}: add "
            f"dataset={trained_on}"
        )
    dataset = load_data(config.dataset)
    kind = dataset.kind
    if kind != expected:
        raise InputError(
            f"dataset={dataset.name}: images of {kind.image_shape}, {len(kind.classes)} classes, "
            f"levels to {kind.levels}; the network takes {expected.image_shape} with "
            f"{len(expected.classes)} and {expected.levels}"
        )
    return dataset


def evaluate_packed(
    config: EvalConfig, run: Run, opened: tuple[Classifier, Path], dataset: Dataset, verified: Any
) -> Record:
    """The test error of a packed network.

    Args:
        opened:   of `open_model`
        verified: what was compared with the trained network before, for the record, or None
    """
    classifier, path = opened
    details = {
        "kernel": config.kernel.value,
        "first": _first(classifier, config),
        "file": path.name,
        "packed_bytes": path.stat().st_size,
        "sha256": file.sha256(path),
        "trained": classifier.model.source,
        "verified": verified,
        "threads": classifier.threads,
    }
    classifier.scores(dataset.test.pixels[:1])  # compiles what is not in the cache yet
    seed = int(classifier.model.source.get("seed", 0))
    print(f"{path}: kernel {config.kernel.value}, on {classifier.device}{why_not_gpu(config)}")
    return measure_error(
        config,
        run,
        classifier.predict,
        dataset,
        ("packed_test_error", seed, details),
        device=classifier.device,
        gpu=classifier.gpu,
    )


def measure_error(
    config: EvalConfig,
    run: Run,
    predict: Callable[[Pixels], NDArray[np.intp]],
    dataset: Dataset,
    of: tuple[str, int, dict[str, Any]],
    *,
    device: str = "cpu",
    gpu: dict[str, Any] | None = None,
) -> Record:
    """The share of wrong answers over the test images, shown and as a record.

    Args:
        of: quantity, seed and details of the record
    """
    images, (quantity, seed, details) = dataset.test, of
    wrong, began = 0, time.perf_counter()
    for start in range(0, len(images), BATCH):
        part = images.take(slice(start, start + BATCH))
        wrong += int(np.count_nonzero(predict(part.pixels) != part.labels))
    taken = time.perf_counter() - began
    error_pct = 100 * wrong / len(images)
    for note in dataset.notes:
        print(f"note: {note}")
    print(
        f"test error {error_pct:.2f} % ({wrong:,} of {len(images):,}), "
        f"{len(images) / taken:,.0f} images/s"
    )
    return Record(
        experiment=run.experiment,
        cell="",
        quantity=quantity,
        value=error_pct,
        unit="%",
        seed=seed,
        device=device,
        details={"images": len(images), "images_per_s": len(images) / taken, **details},
        config={key: value for key, value in computed(config).items() if key != "arch"},
        command=run.command,
        data=dataset.described(),
        wall_time_s=taken,
        gpu=gpu,
    )


def _first(classifier: Classifier, config: EvalConfig) -> str:
    if config.kernel is Kernel.reference:
        return "reference"
    return str(classifier.network.first.value)  # type: ignore[union-attr]
