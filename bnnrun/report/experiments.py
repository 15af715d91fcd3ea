"""The experiments of conf/: how each departs from the authors, and how a run departs from one."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from bnnrun.config import TrainConfig, computed

# What may differ from an experiment's file without making another experiment of it.
BUDGET = {"seed", "cell", "trainer.epochs", "trainer.eval_batch_size"}
DATA = {"dataset.verify", "dataset.holdout_test"}
ABSENT = object()


@dataclass(frozen=True)
class Experiment:
    """A file in conf/experiment as it is composed.

    Attributes:
        text: of the file, whose first comment says what it deviates in
    """

    name: str
    text: str
    config: TrainConfig

    @property
    def cell(self) -> str:
        return self.config.cell

    @property
    def deviations(self) -> tuple[str, tuple[str, ...]]:
        """What the file's first comment deviates from, and in what: a sentence a deviation.

        A sentence ends where a line of the comment ends in a semicolon or a full stop.
        """
        comment = [line[1:].strip() for line in self.text.splitlines() if line.startswith("#")]
        begin = next((i for i, line in enumerate(comment) if "Deviations from" in line), None)
        if begin is None:
            return "", ()
        against = comment[begin].partition("Deviations from ")[2].removesuffix(":")
        sentences = [""]
        for line in comment[begin + 1 :]:
            sentences[-1] = f"{sentences[-1]} {line}".strip()
            if line.endswith((";", ".")):
                sentences[-1] = sentences[-1][:-1]
                sentences.append("")
        return against, tuple(part for part in sentences if part)

    @property
    def settings(self) -> dict[str, Any]:
        """Dotted keys and values of all that the run computes with."""
        return dict(flat(computed(self.config)))


def flat(tree: dict[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of every leaf."""
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from flat(value, f"{path}{name}.")
        else:
            yield f"{path}{name}", value


@dataclass(frozen=True)
class Difference:
    """A setting that a run changed: `change` is 'norm=shift, output=batch', `base` 'batch'."""

    change: str
    base: str

    def __str__(self) -> str:
        return f"{self.change} ({self.base})"


def differences(config: dict[str, Any], experiment: Experiment) -> tuple[Difference, ...]:
    """In which settings a record's configuration is not the experiment's.

    A group chosen differently is one difference, told with the words that only it has (a rule);
    numbers of it are not told. Settings that one of the two does not have are none: an older
    record lacks what came later.
    """
    theirs, ours = dict(flat(config)), experiment.settings
    chosen = [
        key.removesuffix(".name")
        for key, value in ours.items()
        if key.endswith(".name") and theirs.get(key, value) != value
    ]
    changes = [
        Difference(f"{group}={theirs[f'{group}.name']}{_words(group, theirs, ours)}",
                   ours[f"{group}.name"])
        for group in chosen
    ]  # fmt: skip
    for key, value in ours.items():
        their_value = theirs.get(key, ABSENT)
        if their_value is ABSENT or their_value == value or key in BUDGET | DATA:
            continue
        if key.startswith(tuple(f"{group}." for group in chosen)):
            continue
        # A halving interval belongs to the budget: it is not compressed with the epochs.
        if key == "optimizer.halve_every":
            continue
        changes.append(Difference(f"{key}={shown(their_value)}", shown(value)))
    if init := theirs.get("init"):
        changes.append(Difference(f"init={str(init)[:8]}", "weights of its own"))
    return tuple(changes)


def _words(group: str, theirs: dict[str, Any], ours: dict[str, Any]) -> str:
    """', rule=code': what a chosen group says in words and the other has no setting for."""
    own = (key for key in theirs if key.startswith(f"{group}.") and key not in ours)
    texts = [f"{key.removeprefix(f'{group}.')}={theirs[key]}" for key in own
            if isinstance(theirs[key], str)]  # fmt: skip
    return "".join(f", {each}" for each in texts)


def shown(value: Any) -> str:
    """A setting as a reader knows it: 2^-6, 1 - 2^-10, 128-128-256."""
    if isinstance(value, float):
        return _power(value) or (f"1 - {_power(1 - value)}" if _power(1 - value) else f"{value:g}")
    if isinstance(value, list):
        return "-".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def _power(value: float) -> str:
    """'2^-6'; "" of what is no power of two below 1/2, which reads better in digits."""
    mantissa, exponent = math.frexp(value)
    return f"2^{exponent - 1}" if mantissa == 0.5 and exponent < 0 else ""
