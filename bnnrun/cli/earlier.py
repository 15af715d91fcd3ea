"""What a job of a sweep has left before: its record, or a checkpoint to go on from."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bnnrun import data, records
from bnnrun.config import Device, EngineChoice
from bnnrun.errors import InputError
from bnnrun.records import Record
from bnnrun.settings import plain
from bnnrun.train import STATE, initial


@dataclass
class Earlier:
    """Looks for earlier records, with the MD5 sums of each data set read once.

    Attributes:
        quantity: of the record of a finished job
    """

    quantity: str
    md5: dict[str, list[str]] = field(default_factory=dict)

    def record(self, typed: Any, experiment: str) -> Record | None:
        """The latest record of what would be trained: alike in all that the report pools by.

        Raises:
            InputError: the data, or the first weights, that would be compared with the record's
                cannot be read
        """
        if typed.overwrite:
            return None
        names = f"*-{self.quantity}-s{typed.seed}-*.json"
        sha256 = None if typed.init is None else initial.sha256(typed.init)
        chosen, device = typed.trainer.engine, typed.device
        auto = EngineChoice.fast, EngineChoice.reference
        engines = auto if chosen is EngineChoice.auto else (chosen,)
        configs = [initial.settings(typed, sha256, engine) for engine in engines]
        same_seed, _ = records.read_all(typed.results_dir, names)
        alike = [
            record
            for record in same_seed
            if record.experiment == experiment
            and record.config in configs
            and (device is Device.auto or record.device == device.value)
        ]
        for record in reversed(alike):
            if [file["md5"] for file in record.data["files"]] == self._md5(typed.dataset):
                return record
        return None

    def _md5(self, dataset: Any) -> list[str]:
        key = json.dumps(plain(dataset))
        if key not in self.md5:
            self.md5[key] = [source.md5 for source in data.load(dataset).sources]
        return self.md5[key]


def epochs_done(typed: Any, folder: Path) -> int | None:
    """The whole epochs of a job that was begun in `folder` and goes on; None where it begins.

    With overwrite=true one that came to its last epoch begins anew; without, it has lost its record
    and is written down again.

    Raises:
        InputError: there is a checkpoint that cannot be read
    """
    from bnnrun.train import checkpoint

    path = folder / STATE
    if not path.exists():
        return None
    try:
        epoch = int(checkpoint.load(path, "checkpoint")["epoch"])
    except InputError as error:
        raise InputError(f"{error}; delete it to begin this job anew") from None
    return None if typed.overwrite and epoch >= typed.trainer.epochs else epoch
