"""The data sets as NumPy arrays. Nothing here imports torch."""

import dataclasses
import sys
from types import ModuleType
from typing import TypeVar

from bnnrun.config import DatasetConfig, FolderConfig, SvhnConfig, Verify
from bnnrun.data import cifar10, digits, folder, mnist, svhn
from bnnrun.data.dataset import Dataset, ImageSpec, TestSet
from bnnrun.errors import InputError, nearest

T = TypeVar("T", bound=TestSet)
READERS = {"mnist": mnist, "cifar10": cifar10, "svhn": svhn, "digits": digits, "folder": folder}
SCHEMAS = {"svhn": SvhnConfig, "folder": FolderConfig}  # the others': DatasetConfig
# The files of each data set that is published, or bundled with a package (those have none).
PUBLISHED = {name: READERS[name].FILES for name in ("mnist", "cifar10", "svhn", "digits")}


def load(config: DatasetConfig) -> Dataset:
    """Read a data set; InputError where a file is absent, damaged or, by dataset.verify, altered.

    What is not the published file is noted, and with verify=warn told in one line on stderr, as
    is the folder of files that are not where they are looked for first.
    """
    dataset: Dataset = _reader(config).read(config)
    return _report_differences(config, dataset)


def load_test(config: DatasetConfig) -> TestSet:
    """The test part as `load` gives it, read from the files of that part alone."""
    test: TestSet = _reader(config).read_test(config)
    return _report_differences(config, test)


def _report_differences(config: DatasetConfig, dataset: T) -> T:
    folders = dict.fromkeys(str(s.folder) for s in dataset.sources if s.folder is not None)
    if folders:
        where = ", ".join(folders)
        print(f"bnnrun: dataset.root={config.root}: read from {where}", file=sys.stderr)
    altered = [s for s in dataset.sources if s.published_md5 and not s.published_file]
    if altered and config.verify is Verify.warn:
        names = ", ".join(source.name for source in altered)
        print(f"bnnrun: not the published file, read all the same: {names}", file=sys.stderr)
    notes = (f"{s.name}: md5 {s.md5}, not the published {s.published_md5}" for s in altered)
    return dataclasses.replace(dataset, notes=(*dataset.notes, *notes))


def describe(config: DatasetConfig) -> ImageSpec:
    """Shape, classes and largest pixel value of a data set, without reading its images."""
    spec: ImageSpec = _reader(config).describe(config)
    return spec


def _reader(config: DatasetConfig) -> ModuleType:
    name = config.name
    if name not in READERS:
        raise InputError(f"dataset.name={name}: no reader of that name; {nearest(name, READERS)}")
    if not isinstance(config, SCHEMAS.get(name, DatasetConfig)):
        raise InputError(f"dataset.name={name}: has settings of its own; choose dataset={name}")
    return READERS[name]
