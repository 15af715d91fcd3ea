"""`bnnrun data`: which files of the data sets are there, whether they are whole, and the others."""

from pathlib import Path

from bnnrun.config import DataAction, DataConfig
from bnnrun.data import PUBLISHED
from bnnrun.data.fetch import fetch
from bnnrun.data.published import ABSENT, find_fault, locate, unusual_folder, why_absent
from bnnrun.errors import InputError, nearest
from bnnrun.files import user_path
from bnnrun.table import print_table


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
