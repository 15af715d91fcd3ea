"""`bnnrun data`: which files of the data sets are there, whether they are whole, and the others."""

from pathlib import Path

from bnnrun.config import DataAction, DataConfig
from bnnrun.data import PUBLISHED
from bnnrun.data.published import (
    DataFile,
    altered,
    found_source,
    locate,
    unusual_folder,
    why_absent,
    wrong_size,
)
from bnnrun.errors import InputError, nearest
from bnnrun.files import user_path
from bnnrun.table import print_table

ABSENT = "not there"


def data(config: DataConfig) -> None:
    """List the files of the sets named; `verify` reads them, `fetch` downloads what is not whole.

    Raises:
        InputError: a set of no known name; a file that is there and not the published one
    """
    for name in config.sets:
        if name not in PUBLISHED:
            raise InputError(f"sets={name}: no such data set; {nearest(name, PUBLISHED)}")
    root = user_path(config.root)
    sets = config.sets or list(PUBLISHED)
    if config.action is DataAction.fetch:
        from bnnrun.data.fetch import fetch

        for name in sets:
            fetch(name, root)
    faults = _list(sets, root, read=config.action is not DataAction.status)
    if faults and config.action is not DataAction.status:
        raise InputError(
            f"{', '.join(faults)}: not the published file; `bnnrun data fetch SET` replaces it"
        )


def _list(sets: list[str], root: Path, *, read: bool) -> list[str]:
    """Print a row a file, then what is missing; the paths of files that are not the published."""
    rows, missing, faults = [], [], []
    for name in sets:
        for file in PUBLISHED[name]:
            path, form = locate(root, file)
            fault = find_fault(root, file, read=read)
            state = fault or ("whole" if read else "there")
            if fault == ABSENT:
                missing.append(name)
                why = why_absent(root, file)
                state += f": {why}" if why else ""
                state += "; the set can be read without it" if file.optional else ""
            elif fault:
                faults.append(str(path))
            if fault != ABSENT and (folder := unusual_folder(root, path, form)) is not None:
                state += f", in {folder}"
            rows.append([name, form.path, f"{form.size:,}", state])
        if not PUBLISHED[name]:
            rows.append([name, "(bundled with scikit-learn)", "", "there"])
    print_table(["data set", "file", "bytes", "state"], rows, title=f"data root: {root}")
    if missing:
        names = " ".join(dict.fromkeys(missing))
        print(f"What is not there goes to {root}; `bnnrun data fetch {names}` downloads it.")
    return faults


def find_fault(root: Path, file: DataFile, *, read: bool) -> str | None:
    """What is wrong with a file, by its size and, with `read`, its MD5 sum; None where nothing."""
    path, form = locate(root, file)
    if not path.is_file():
        return ABSENT
    if (short := wrong_size(path, form)) is not None:
        return short
    if not read:
        return None
    source = found_source(root, path, form)
    return None if source.published_file else altered(source)
