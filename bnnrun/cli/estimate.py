"""How long a job will train, from the records of jobs before it."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from bnnrun import data, machine, records
from bnnrun.architecture import ARCHS, plan
from bnnrun.config import ArchConfig, DatasetConfig, Device
from bnnrun.errors import InputError
from bnnrun.records import Record
from bnnrun.settings import plain, restore


@dataclass(frozen=True)
class Estimate:
    """What a job may take.

    Attributes:
        hours:  None where no record tells
        source: the record that it follows from, and how
    """

    hours: float | None
    source: str


class Estimator:
    """Estimates by the training runs in a folder of results.

    The time of an epoch is the latest one measured of the same network (architecture, data set,
    binarization, optimizer) on the device, this machine's first; where there is none, that of
    another network, times the ratio of their multiply-accumulates and of their training images.
    """

    def __init__(self, results_dir: str) -> None:
        measured, _ = records.read_all(results_dir, "*-test_error-*.json")
        self.runs = [r for r in measured if r.wall_time_s > 0 and r.details.get("epochs")]

    def estimate(self, typed: Any, epochs: int) -> Estimate:
        """Of `epochs` epochs of a configuration."""
        device = self._device(typed.device)
        runs = [run for run in self.runs if run.device == device]
        same = [run for run in runs if _network(run.config) == _network(plain(typed))]
        if same:
            run = max(same, key=_preference)
            seconds = run.wall_time_s / run.details["epochs"]
            return Estimate(seconds * epochs / 3600, f"measured: {_named(run)}")
        images, macs = self._images(typed.dataset), _macs_of(typed)
        alike = [run for run in runs if _macs(run) is not None]
        if not alike or images is None or macs is None:
            return Estimate(None, f"no record on device={device} tells")
        ours = plain(typed)
        run = max(alike, key=lambda run: (_likeness(run.config, ours), *_preference(run)))
        seconds = run.wall_time_s / run.details["epochs"]
        scale = macs * images / (_macs(run) or 1) / run.data["train"]
        return Estimate(seconds * scale * epochs / 3600, f"scaled by MACs: {_named(run)}")

    def _device(self, device: Device) -> str:
        if device is not Device.auto:
            return str(device.value)
        import torch

        return "cuda" if torch.cuda.is_available() else "cpu"

    def _images(self, dataset: DatasetConfig) -> int | None:
        """Training images of a data set: as a record has them, or as they are read."""
        known = [run.data["train"] for run in self.runs if run.data.get("name") == dataset.name]
        if known:
            return int(known[-1])
        try:
            return len(data.load(dataset).train)
        except InputError:
            return None


def _network(config: dict[str, Any]) -> tuple[Any, ...]:
    """What decides how long an epoch takes."""
    binarization = config["binarization"]
    return (
        config["arch"],
        config["dataset"]["name"],
        binarization["weights"],
        binarization["activations"],
        config["optimizer"]["name"],
    )


def _likeness(theirs: dict[str, Any], ours: dict[str, Any]) -> tuple[bool, bool]:
    binarization = ("weights", "activations")
    return (
        theirs["arch"]["name"] == ours["arch"]["name"],
        all(theirs["binarization"][k] == ours["binarization"][k] for k in binarization),
    )


def _preference(run: Record) -> tuple[bool, str]:
    """This machine's first, then the latest."""
    here = machine.gpu() if run.device == "cuda" else machine.cpu()
    theirs = (run.gpu if run.device == "cuda" else run.cpu) or {}
    return here is not None and here["model"] == theirs.get("model"), run.created


def _macs(run: Record) -> int | None:
    """Multiply-accumulates an image of a record's network."""
    arch, name = run.config["arch"], run.config["dataset"]["name"]
    try:
        dataset = data.SCHEMAS.get(name, DatasetConfig)(name=name)
        return _sum(restore(ARCHS[arch["name"]], arch), dataset)
    except (InputError, KeyError):
        return None


def _macs_of(typed: Any) -> int | None:
    try:
        return _sum(typed.arch, typed.dataset)
    except InputError:
        return None


def _sum(arch: ArchConfig, dataset: DatasetConfig) -> int:
    return sum(layer.macs for layer in plan(arch, data.describe(dataset)))


def _named(run: Record) -> str:
    """'digits_binary, 1,197 images, on MODEL'."""
    device = (run.gpu if run.device == "cuda" else run.cpu) or {}
    images, model = run.data["train"], device.get("model", run.device)
    return f"{run.experiment or run.data['name']}, {images:,} images, on {model}"


def total(estimates: Iterable[Estimate]) -> tuple[float, int]:
    """(hours of those that are known, how many are not)."""
    hours = [each.hours for each in estimates]
    return sum(h for h in hours if h is not None), sum(h is None for h in hours)
