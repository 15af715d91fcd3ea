"""The published files: what each must be, and whether the one found is it."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bnnrun.config import DatasetConfig, Verify
from bnnrun.data.dataset import Source
from bnnrun.errors import InputError
from bnnrun.files import user_path


@dataclass(frozen=True)
class DataFile:
    """A published file.

    Attributes:
        path:     under the data root, where torchvision puts it
        md5:      its published MD5 sum
        size:     in bytes
        optional: the data set can be read without it
    """

    path: str
    md5: str
    size: int
    optional: bool = False


def locate(config: DatasetConfig, file: DataFile) -> Path:
    """Where a file is looked for."""
    return user_path(config.root) / file.path


def check_file(config: DatasetConfig, file: DataFile, or_else: str = "") -> Source:
    """A file as it is found.

    Args:
        or_else: what a user can do where the file is absent, besides getting it

    Raises:
        InputError: it is absent or unreadable; with verify=strict, it is not the published one
    """
    path = locate(config, file)
    if not path.is_file():
        raise InputError(
            f"{path}: no such file; expected {file.size:,} bytes with md5 {file.md5}. "
            f"`bnnrun data fetch {config.name}` downloads it, dataset.root=FOLDER names the folder "
            f"of your data{or_else}"
        )
    strict = config.verify is Verify.strict
    if strict and (short := wrong_size(path, file)) is not None:
        raise InputError(f"{path}: {short}; {_advice(config)}")
    source = Source(file.path, *fingerprint(path), file.md5)
    if strict and not source.published_file:
        raise InputError(f"{path}: {altered(source)}; {_advice(config)}")
    return source


def _advice(config: DatasetConfig) -> str:
    return f"`bnnrun data fetch {config.name}` replaces it, dataset.verify=warn reads it as it is"


def wrong_size(path: Path, file: DataFile) -> str | None:
    """What is wrong with the size of a file that is there; None where nothing is."""
    size = path.stat().st_size
    if size == file.size:
        return None
    return f"{size:,} bytes, the published file has {file.size:,}: cut short, or another file"


def altered(source: Source) -> str:
    """How a file differs from the published one of the same size."""
    return f"altered: md5 {source.md5}, published {source.published_md5}"


def fingerprint(path: Path) -> tuple[int, str]:
    """(bytes, MD5 sum), read piece by piece: the largest file has 1.3 GB."""
    try:
        with path.open("rb") as file:
            md5 = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False))
            return file.tell(), md5.hexdigest()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None


def holds_out_test(config: DatasetConfig, official: Sequence[DataFile]) -> bool:
    """Whether the test set comes out of the training images.

    Raises:
        InputError: it is asked for while a file of the official test set is there
    """
    if config.holdout_test == 0:
        return False
    for file in official:
        if locate(config, file).is_file():
            raise InputError(
                f"dataset.holdout_test={config.holdout_test}: {locate(config, file)} is there, and "
                "where it is, it is the test set; leave dataset.holdout_test out"
            )
    return True


def refuse_holdout(config: DatasetConfig, why: str) -> None:
    """InputError where dataset.holdout_test is set on a data set that has no use for it."""
    if config.holdout_test:
        raise InputError(
            f"dataset.holdout_test={config.holdout_test}: dataset={config.name} {why}; "
            "leave dataset.holdout_test out"
        )
