"""One measured number with all that explains it: a JSON file under results/runs/.

Tables and figures are made from these files alone; nothing else holds a result.
"""

import hashlib
import json
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from bnnrun import machine, upgrade
from bnnrun.errors import InputError
from bnnrun.files import user_path, write_text

FORMAT = 2  # since competitors have role and variant
READABLE = (1, 2)


@dataclass(frozen=True)
class Run:
    """What the command line knows of a run.

    Attributes:
        check: raises RunError where another process has taken the folder over
    """

    folder: Path
    command: str
    experiment: str
    check: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class Record:
    """A number, and the way back from it.

    Attributes:
        experiment: name of the file in conf/experiment, "" for a run of the user's own
        cell:       of the paper's tables, such as table1.mnist.theano, or ""
        quantity:   what was measured, such as test_error
        value:      the number, in `unit`
        details:    what belongs to it: the protocol, the curve's ends, spread and count; of a time
                    role and variant of the competitor (roles.py)
        config:     the full configuration as it was composed
        data:       files, checksums and sizes of the split
        source:     commit of the code, and whether the tree was clean
        device:     "cpu" or "cuda", where the number was made
        created:    UTC, ISO 8601
    """

    experiment: str
    cell: str
    quantity: str
    value: float
    unit: str
    seed: int
    device: str
    details: dict[str, Any]
    config: dict[str, Any]
    command: str
    data: dict[str, Any] = field(default_factory=dict)
    wall_time_s: float = 0.0
    peak_memory_bytes: int = field(default_factory=machine.peak_memory_bytes)
    source: dict[str, Any] = field(default_factory=machine.source_state)
    versions: dict[str, str] = field(default_factory=machine.versions)
    cpu: dict[str, Any] = field(default_factory=machine.cpu)
    gpu: dict[str, Any] | None = None
    created: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    format: int = FORMAT

    def __post_init__(self) -> None:
        # Names of files need not be UTF-8; a record is.
        for f in fields(self):
            object.__setattr__(self, f.name, _as_utf8(getattr(self, f.name)))

    @cached_property
    def checksum(self) -> str:
        """SHA-256 of the record's content in canonical JSON, in the form it was written in."""
        return _checksum({f.name: getattr(self, f.name) for f in fields(self)})

    @property
    def name(self) -> str:
        """File name: experiment or data set, quantity, seed, time, start of the checksum."""
        stem = self.experiment or self.config.get("dataset", {}).get("name", "made-up")
        time = self.created[:19].replace(":", "").replace("-", "")
        return f"{stem}-{self.quantity}-s{self.seed}-{time}-{self.checksum[:8]}.json"


def _as_utf8(value: Any) -> Any:
    """`value` with what no UTF-8 can hold, such as half of a character, written as an escape."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(value, dict):
        return {_as_utf8(key): _as_utf8(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(map(_as_utf8, value))
    return value


def _checksum(content: dict[str, Any]) -> str:
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode(errors="backslashreplace")).hexdigest()


def prepare(results_dir: str | Path) -> None:
    """Make the folder for records; InputError, before the long work, where none can be written."""
    runs = user_path(results_dir) / "runs"
    try:
        runs.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=runs):
            pass
    except OSError as error:
        raise InputError(
            f"results_dir={results_dir}: no record can be written there ({error.strerror})"
        ) from None


def write(record: Record, results_dir: str | Path) -> Path:
    """Write a record to `results_dir`/runs/ and return its path."""
    path = user_path(results_dir) / "runs" / record.name
    content = {**asdict(record), "checksum": record.checksum}
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    return path


def read(path: Path) -> Record:
    """Read a record back, an older one in today's form.

    Raises:
        InputError: the file is no record, one of an unknown format, or altered
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not a record ({error})") from None
    if not isinstance(content, dict) or "checksum" not in content:
        raise InputError(f"{path}: not a record (no checksum)")
    checksum = content.pop("checksum")
    if content.get("format") not in READABLE:
        raise InputError(
            f"{path}: record format {content.get('format')}, this version reads "
            f"{' and '.join(map(str, READABLE))}"
        )
    if checksum != _checksum(content):
        raise InputError(f"{path}: altered: its content does not have its checksum")
    # A field that is absent must not be filled with what this machine is.
    if absent := {f.name for f in fields(Record)} - set(content):
        raise InputError(f"{path}: not a record (no {', '.join(sorted(absent))})")
    try:
        record = Record(**upgrade.record(content))
    except (TypeError, ValueError, AttributeError, KeyError, InputError) as error:
        raise InputError(f"{path}: not a record ({error})") from None
    # The file is named after the checksum of what it holds, not of today's form of it.
    vars(record)["checksum"] = checksum
    return record


def read_all(results_dir: str | Path, names: str = "*.json") -> tuple[list[Record], list[str]]:
    """The whole records of `results_dir`/runs/, oldest first; what is wrong with the others.

    Args:
        names: pattern of the files that are looked at
    """
    records, damaged = [], []
    for path in sorted((user_path(results_dir) / "runs").glob(names)):
        try:
            records.append(read(path))
        except InputError as error:
            damaged.append(str(error))
    return sorted(records, key=lambda record: (record.created, record.name)), damaged
