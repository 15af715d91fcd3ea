"""The records that a report is made of: whole, of this version, each once."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bnnrun import records
from bnnrun.errors import InputError
from bnnrun.files import user_path
from bnnrun.records import Record
from bnnrun.report.timing import implementation

COMPETITOR = ("details.role", "details.variant")
# What a record of a quantity must tell to stand in a table; what else it lacks is noted there.
NEEDED = {
    "test_error": (),
    "packed_test_error": (
        "data.name", "details.sha256", "details.kernel", "details.first", "details.packed_bytes",
        "details.images_per_s", "details.trained.test_error_pct",
    ),
    "unique_filters": ("details.sha256", "details.by_chance_pct", "details.trained"),
    "gemm_time": (*COMPETITOR, "config.m", "config.n", "config.k"),
    "mlp_time": (*COMPETITOR, "config.arch", "config.dataset.name", "config.batch"),
    "convnet_time": (*COMPETITOR, "config.dataset.name", "config.batch"),
    "train_step_time": (*COMPETITOR, "config.dataset.name"),
}  # fmt: skip
STRINGS = ("experiment", "cell", "quantity", "unit", "device", "command", "created")
TREES = ("details", "config", "data", "source", "versions", "cpu")


@dataclass(frozen=True)
class Collected:
    """What lies in a results folder.

    Attributes:
        records:  oldest first
        left_out: a line for each file that is none, or none that can be shown
        models:   packed files
    """

    records: list[Record]
    left_out: list[str]
    models: list[Path]


def collect(results_dir: str | Path) -> Collected:
    """Read every file of `results_dir`/runs/; one bad file never costs the others."""
    by_checksum: dict[str, tuple[Path, Record]] = {}
    left_out = []
    for path in sorted((user_path(results_dir) / "runs").glob("*.json")):
        try:
            record = records.read(path)
        except InputError as error:
            left_out.append(str(error).removeprefix(f"{path.parent}/"))
            continue
        if (wrong := _wrong(record)) is not None:
            left_out.append(f"{path.name}: {wrong}")
        elif record.checksum in by_checksum:
            first, _ = by_checksum[record.checksum]
            left_out.append(f"{path.name}: the same record as {first.name}")
        else:
            by_checksum[record.checksum] = path, record
    intact = sorted(
        (record for _, record in by_checksum.values()), key=lambda r: (r.created, r.name)
    )
    models = sorted((user_path(results_dir) / "models").glob("*.safetensors"))
    return Collected(intact, left_out, models)


def _wrong(record: Record) -> str | None:
    """What of a record's form is not as it must be; None where nothing is."""
    for names, type_, said in ((STRINGS, str, "text"), (TREES, dict, "object")):
        for name in names:
            if not isinstance(getattr(record, name), type_):
                return f"{name} is no {said}"
    if not (_is_number(record.value) and _is_number(record.wall_time_s)):
        return "value or wall_time_s is no finite number"
    if not isinstance(record.seed, int) or len(record.created) < len("2026-01-01T00:00:00"):
        return "seed is no integer, or created no time"
    return _lacking(record)


def _lacking(record: Record) -> str | None:
    if record.quantity not in NEEDED:
        return f"quantity {record.quantity!r}: this version has no table for it"
    for path in NEEDED[record.quantity]:
        tree: Any = vars(record)
        for name in path.split("."):
            tree = tree.get(name) if isinstance(tree, dict) else None
        if tree is None:
            return f"a {record.quantity} without {path}"
    if "details.role" in NEEDED[record.quantity]:
        try:
            implementation(record)
        except ValueError as error:
            return f"no competitor of this version: {error}"
    return None


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return abs(value) < float("inf")
