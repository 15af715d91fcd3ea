"""`bnnrun data fetch`: torchvision's own download, to where the readers look."""

import importlib
from http.client import HTTPException
from pathlib import Path
from types import ModuleType

from bnnrun.data import PUBLISHED
from bnnrun.data.published import find_fault
from bnnrun.errors import RunError


def fetch(name: str, root: Path) -> None:
    """Download the files of a set that are absent or not the published ones, below `root`.

    Raises:
        RunError: they cannot be had; one line names the source, the file, the folder and its MD5
    """
    wanted = [f for f in PUBLISHED[name] if find_fault(root, f, read=True) is not None]
    if not wanted:
        print(f"{name}: nothing to fetch")
        return
    published = _torchvision()
    if name == "cifar10":
        archive = published.CIFAR10
        _download([archive.url], root, archive.filename, archive.tgz_md5, is_archive=True)
    else:
        svhn = {filename: url for url, filename, _ in published.SVHN.split_list.values()}
        for file in wanted:
            path = root / file.path
            mirrors = [mirror + path.name for mirror in published.MNIST.mirrors]
            urls = mirrors if name == "mnist" else [svhn[path.name]]
            _download(urls, path.parent, path.name, file.md5)
    for file in wanted:
        if (fault := find_fault(root, file, read=True)) is not None:
            raise RunError(f"{root / file.path}: fetched, and still {fault}")


def _torchvision() -> ModuleType:
    try:
        return importlib.import_module("torchvision.datasets")
    except (ImportError, RuntimeError) as error:  # a build for another torch raises RuntimeError
        reason = str(error).splitlines()[0]
        raise RunError(f"torchvision, which downloads, cannot be imported: {reason}") from None


def _download(
    urls: list[str], folder: Path, filename: str, md5: str, *, is_archive: bool = False
) -> None:
    """A file from the first source that gives it; torchvision checks its MD5 sum."""
    utils = _torchvision().utils
    reasons = []
    for url in urls:
        print(f"{url} -> {folder / filename}")
        try:
            if is_archive:
                utils.download_and_extract_archive(
                    url, str(folder), filename=filename, md5=md5, remove_finished=True
                )
            else:
                utils.download_url(url, str(folder), filename, md5)
            return
        except (OSError, RuntimeError, HTTPException) as error:  # URLError is an OSError
            reasons.append(" ".join(str(error).split()) or type(error).__name__)
    raise RunError(
        f"{filename}: could not be fetched from {' or '.join(urls)} ({reasons[-1]}); put it into "
        f"{folder} by hand, its md5 is {md5}"
    )
