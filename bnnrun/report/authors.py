"""The authors' settings for the cells that we run: their code's, and the paper's where they differ.

A key is ours; a value that no setting of ours can have is told in words.
"""

import json
from typing import Any

from bnnrun.report.experiments import Experiment, shown
from bnnrun.table import Parts, Value

_ADAM = {"optimizer.beta1": 0.9, "optimizer.beta2": 0.999, "optimizer.eps": 1e-8}
_THEANO = {
    "binarization.weights": "sign",
    "binarization.activations": "sign",
    "norm.name": "batch",
    "norm.eps": 1e-4,
    "norm.momentum": 0.1,
    "optimizer.name": "adam",
    "optimizer.schedule": "geometric",
    "optimizer.lr_scale": "c",
    "optimizer.clip": "weights",
    "dataset.preprocessing": "scale",
    **_ADAM,
}
_TORCH7 = {
    "binarization.weights": "sign",
    "binarization.activations": "stochastic",
    "norm.name": "shift",
    "norm.eps": 1e-5,
    "norm.momentum": 2**-3,
    "norm.output": "batch",
    "optimizer.name": "shift_adamax",
    "optimizer.rule": "code",
    "optimizer.beta1": 0.9,
    "optimizer.beta2": 0.999,
    "optimizer.schedule": "halving",
}
_MLP = {"arch.depth": 3, "arch.width": 4096}
_DROPOUT = {"arch.dropout_input": 0.2, "arch.dropout_hidden": 0.5}
_CIFAR10 = {"arch.channels": [128, 128, 256, 256, 512, 512], "arch.fc": [1024, 1024]}
_SVHN = {"arch.channels": [64, 64, 128, 128, 256, 256], "arch.fc": [1024, 1024]}
_SVHN_VALID = {"dataset.validation": 400, "dataset.validation_extra": 200}
_NO_DROPOUT = {"arch.dropout_input": 0.0, "arch.dropout_hidden": 0.0}


def _schedule(epochs: object, batch: int, lr: float, **more: float) -> dict[str, Any]:
    return {
        "trainer.epochs": epochs,
        "trainer.batch_size": batch,
        "optimizer.lr": lr,
        **{f"optimizer.{key}": value for key, value in more.items()},
    }


CODE: dict[str, dict[str, Any]] = {
    "table1.mnist.theano": _THEANO | _MLP | _DROPOUT | {"dataset.validation": 10_000}
    | _schedule(1000, 100, 3e-3, lr_end=3e-7),
    "table1.cifar10.theano": _THEANO | _CIFAR10 | {"dataset.validation": 5_000}
    | _schedule(500, 50, 1e-3, lr_end=3e-7),
    "table1.svhn.theano": _THEANO | _SVHN | _SVHN_VALID | _schedule(200, 50, 1e-3, lr_end=1e-6),
    "table1.mnist.torch7": _TORCH7 | _NO_DROPOUT | {
        "arch.depth": 3, "arch.width": 2048, "dataset.validation": "a sixth, sampled",
        "dataset.preprocessing": "standardize", "optimizer.lr_scale": "c",
        "optimizer.scale_gamma": True, "optimizer.clip": "weights",
    } | _schedule("without end", 100, 2**-6, halve_every=20),
    "table1.cifar10.torch7": _TORCH7 | _CIFAR10 | {
        "dataset.validation": "a tenth, sampled", "dataset.preprocessing": "zca, twice",
        "optimizer.lr_scale": "c_power_of_two", "optimizer.clip": "all",
    } | _schedule("without end", 200, 2**-6, halve_every=50),
    "table1.svhn.torch7": _TORCH7 | _SVHN | _SVHN_VALID | {
        "dataset.preprocessing": "contrast-normalized globally and locally",
        "optimizer.lr_scale": "c_power_of_two", "optimizer.clip": "weights",
    } | _schedule("without end", 200, 2**-7, halve_every=20),
}  # fmt: skip

_SHIFT_ADAMAX = {
    "optimizer.rule": "paper",
    "optimizer.lr": 2**-10,
    "optimizer.beta1": 1 - 2**-3,
    "optimizer.beta2": 1 - 2**-10,
    "optimizer.clip": "weights",
    "norm.output": "shift",
    "dataset.preprocessing": "none",
}
PAPER: dict[str, dict[str, Any]] = {
    "table1.mnist.torch7": {**_SHIFT_ADAMAX, "optimizer.halve_every": 10},
    "table1.cifar10.torch7": {**_SHIFT_ADAMAX, "optimizer.halve_every": 50, "trainer.epochs": 500},
    "table1.svhn.torch7": {**_SHIFT_ADAMAX, "trainer.epochs": 200},
}


def departures(experiment: Experiment) -> list[tuple[str, Value, Value, Value]]:
    """(setting, ours, the code's, the paper's) where ours is not the code's, or not the paper's.

    "" for a side that says nothing of the setting.
    """
    ours = experiment.settings
    code, text = CODE.get(experiment.cell, {}), PAPER.get(experiment.cell, {})
    scaled = {"dataset.preprocessing": {"scale": "none"}}  # to [-1, 1] is no preprocessing
    rows: list[tuple[str, Value, Value, Value]] = []
    for key in sorted({*code, *text}):
        value = ours.get(key)
        said = [side[key] for side in (code, text) if key in side]
        if all(each in (value, scaled.get(key, {}).get(str(value))) for each in said):
            continue
        sides = [_setting(side[key]) if key in side else "" for side in (code, text)]
        rows.append((key, _setting(value), sides[0], sides[1]))
    return rows


def _setting(value: Any) -> Parts:
    """A setting as a reader knows it; for programs as a configuration holds it."""
    return Parts(shown(value), (value if isinstance(value, str) else json.dumps(value),))
