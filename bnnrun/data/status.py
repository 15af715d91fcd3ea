"""`bnnrun data`: which files of the data sets are there."""

from pathlib import Path

from bnnrun.config import DataConfig
from bnnrun.data import READERS
from bnnrun.data.dataset import read_verified
from bnnrun.errors import InputError
from bnnrun.table import print_table


def data(config: DataConfig) -> None:
    """List each published file with its size and state; nothing is fetched."""
    root = Path(config.root).expanduser()
    rows = []
    for name, reader in READERS.items():
        for file in reader.FILES:
            try:
                read_verified(root, file)
                state = "whole"
            except InputError as error:
                state = "not there" if "no such file" in str(error) else str(error)
            rows.append([name, file.path, f"{file.size:,}", state])
        if not reader.FILES:
            rows.append([name, "(bundled with scikit-learn)", "", "whole"])
    print_table(["data set", "file", "bytes", "state"], rows, title=f"data root: {root}")
