"""The published files: what each must be, and whether the one found is it."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bnnrun.config import DatasetConfig, Verify
from bnnrun.data.dataset import Source
from bnnrun.errors import InputError
from bnnrun.files import user_path

ABSENT = "not there"


@dataclass(frozen=True)
class DataFile:
    """A published file.

    Attributes:
        path:     under the data root, where torchvision puts it
        md5:      its published MD5 sum
        size:     in bytes
        optional: the data set can be read without it
        also:     other files of the same content, taken where this one is not there
        mistaken: (path, what it is) of files that are taken for this one and are not
    """

    path: str
    md5: str
    size: int
    optional: bool = False
    also: tuple["DataFile", ...] = ()
    mistaken: tuple[tuple[str, str], ...] = ()


def locate(root: str | Path, file: DataFile) -> tuple[Path, DataFile]:
    """Where a file is, and which of its forms; where none is, the place of `file` itself.

    A root a level off is understood: the folder of the set (root=.../MNIST/raw), or the folder
    above the root, where one folder in it alone holds the file.
    """
    forms = (file, *file.also)
    folder = user_path(root)
    for find in (_standard, _inside, _below):
        for form in forms:
            if (path := find(folder, form.path)) is not None:
                return path, form
    return folder / file.path, file


def _standard(root: Path, name: str) -> Path | None:
    return root / name if (root / name).is_file() else None


def _inside(root: Path, name: str) -> Path | None:
    """Where the root is one of the folders that lead to the file."""
    parts = Path(name).parts
    places = (root.joinpath(*parts[i:]) for i in range(1, len(parts)))
    return next((place for place in places if place.is_file()), None)


def _below(root: Path, name: str) -> Path | None:
    """Where one folder in the root alone holds the file."""
    places = _places_below(root, name)
    return places[0] if len(places) == 1 else None


def _places_below(root: Path, name: str) -> list[Path]:
    """Where folders in the root hold the file; one that links lead to counts once."""
    places = {path.resolve(): path for path in sorted(root.glob(f"*/{name}")) if path.is_file()}
    return list(places.values())


def why_absent(root: str | Path, file: DataFile) -> str:
    """What lies there in place of an absent file; nothing where nothing does."""
    for name, what in file.mistaken:
        path, _ = locate(root, DataFile(name, "", 0))
        if path.is_file():
            return f"{path} is {what}"
    for form in (file, *file.also):
        if len(places := _places_below(user_path(root), form.path)) > 1:
            return f"{' and '.join(map(str, places[:3]))} are there: choose one by dataset.root"
    return ""


def check_file(config: DatasetConfig, file: DataFile, or_else: str = "") -> Source:
    """A file as it is found.

    Args:
        or_else: what a user can do where the file is absent, besides getting it

    Raises:
        InputError: it is absent or unreadable; with verify=strict, it is not the published one
    """
    path, form = locate(config.root, file)
    if not path.is_file():
        instead = f"; {why}" if (why := why_absent(config.root, file)) else ""
        raise InputError(
            f"{path}: no such file; expected {file.size:,} bytes with md5 {file.md5}{instead}. "
            f"`bnnrun data fetch {config.name}` downloads it, dataset.root=FOLDER names the folder "
            f"of your data{or_else}"
        )
    strict = config.verify is Verify.strict
    if strict and (short := wrong_size(path, form)) is not None:
        raise InputError(f"{path}: {short}; {_advice(config)}")
    source = source_of_file(config.root, path, form)
    if strict and not source.published_file:
        raise InputError(f"{path}: {altered(source)}; {_advice(config)}")
    return source


def source_of_file(root: str | Path, path: Path, form: DataFile) -> Source:
    """A file found by `locate`, with its checksum."""
    return Source(form.path, *fingerprint(path), form.md5, folder=unusual_folder(root, path, form))


def unusual_folder(root: str | Path, path: Path, form: DataFile) -> Path | None:
    """The folder of a file found by `locate`; None where it is the one looked into first."""
    return None if path == user_path(root) / form.path else path.parent


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


def find_fault(root: Path, file: DataFile, *, read: bool) -> str | None:
    """What is wrong with a file, by its size and, with `read`, its MD5 sum; None where nothing."""
    path, form = locate(root, file)
    if not path.is_file():
        return ABSENT
    if (short := wrong_size(path, form)) is not None:
        return short
    if not read:
        return None
    source = source_of_file(root, path, form)
    return None if source.published_file else altered(source)


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
        path, _ = locate(config.root, file)
        if path.is_file():
            raise InputError(
                f"dataset.holdout_test={config.holdout_test}: {path} is there, and where it is, it "
                "is the test set; leave dataset.holdout_test out"
            )
    return True


def refuse_holdout(config: DatasetConfig, why: str) -> None:
    """InputError where dataset.holdout_test is set on a data set that has no use for it."""
    if config.holdout_test:
        raise InputError(
            f"dataset.holdout_test={config.holdout_test}: dataset={config.name} {why}; "
            "leave dataset.holdout_test out"
        )
