"""The data sets as NumPy arrays. Nothing here imports torch."""

from pathlib import Path
from types import ModuleType

from bnnrun.data import digits, mnist
from bnnrun.data.dataset import Dataset, Kind
from bnnrun.errors import InputError, nearest

READERS = {"digits": digits, "mnist": mnist}


def load(name: str, root: str) -> Dataset:
    """Read a data set by name from the files under `root`; InputError where one is not whole."""
    dataset: Dataset = _reader(name).read(Path(root).expanduser())
    return dataset


def describe(name: str) -> Kind:
    """Shape, classes and levels of a data set, without reading it."""
    kind: Kind = _reader(name).KIND
    return kind


def _reader(name: str) -> ModuleType:
    if name not in READERS:
        raise InputError(f"dataset.name={name}: no reader of that name; {nearest(name, READERS)}")
    return READERS[name]
