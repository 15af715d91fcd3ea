"""Image files in a folder and below it: which there are, and what is left out and why."""

import os
import unicodedata
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from bnnrun.errors import InputError, listed, printable

SUFFIXES = {
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".dib", ".gif", ".pbm", ".pgm", ".ppm",
    ".pnm", ".tif", ".tiff", ".webp",
}  # fmt: skip
# What systems and programs put beside a user's files; names that begin with "." are as hidden.
NO_DATA = {
    "__macosx", "thumbs.db", "desktop.ini", "@eadir", "#recycle", "$recycle.bin", "lost+found",
    "system volume information", "__pycache__",
}  # fmt: skip
SPECIAL, NO_SUFFIX = "no regular files", "no suffix"


@dataclass
class Listing:
    """What lies in a folder and below it.

    Attributes:
        images:       in the order of `sort_key`
        others:       number of the files that are left out, by suffix or another reason
        hidden:       number of hidden files named like images, such as macOS's "._photo.jpg"
        broken:       links to nothing, except those named like images
        not_followed: links to folders that are read elsewhere, or that lead back up
    """

    images: list[Path] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)
    hidden: int = 0
    broken: list[Path] = field(default_factory=list)
    not_followed: list[Path] = field(default_factory=list)

    def add(self, entry: "os.DirEntry[str]", path: Path) -> None:
        """Take an entry that is no folder for an image or for one of the others."""
        is_named_like_image = path.suffix.lower() in SUFFIXES
        is_broken = entry.is_symlink() and not path.exists()
        if is_hidden(entry.name):
            self.hidden += is_named_like_image
        elif is_named_like_image and (is_broken or _is(entry.is_file, broken=True)):
            self.images.append(path)  # where it cannot be read, reading it tells name and reason
        elif is_broken:
            self.broken.append(path)
        elif not _is(entry.is_file, broken=True):
            self.others[SPECIAL] += 1
        else:
            self.others[printable(path.suffix.lower()) or NO_SUFFIX] += 1

    def update(self, other: "Listing") -> None:
        """Add what lies in another folder."""
        self.images += other.images
        self.others += other.others
        self.hidden += other.hidden
        self.broken += other.broken
        self.not_followed += other.not_followed

    def left_out(self) -> str:
        """'12 .txt, 1 no suffix, 2 hidden'; nothing where all are images."""
        reasons = [f"{n:,} {reason}" for reason, n in self.others.most_common()]
        if self.hidden:
            reasons.append(f"{self.hidden:,} hidden")
        if self.broken:
            names = listed((printable(path.name) for path in self.broken), 3)
            reasons.append(f"{len(self.broken):,} links to nothing ({names})")
        return listed(reasons)


def find_images(
    folder: Path,
    classes: Iterable[str] = (),
    seen: set[str] | None = None,
    faults: list[str] | None = None,
) -> Listing:
    """Every image in `folder` and below; links to folders are followed, each folder once.

    Args:
        classes: real paths of folders that are read by themselves: no link leads into one
        seen:    real paths of the folders read so far, which are not read again
        faults:  takes a line for each folder that cannot be read; None: it is an InputError
    """
    listing, seen = Listing(), set() if seen is None else seen
    others = {Path(path) for path in classes if path != os.path.realpath(folder)}
    waiting, links = deque([folder]), deque[Path]()
    while waiting or links:
        # Folders before links: an image has the same name wherever a link to it sorts.
        current = waiting.popleft() if waiting else links.popleft()
        real = Path(os.path.realpath(current))
        is_above = real in Path(os.path.realpath(current.parent)).parents
        if str(real) in seen or is_above or others & {real, *real.parents}:
            listing.not_followed.append(current)
            continue
        seen.add(str(real))
        for entry in _scan_or_note(current, faults):
            path = current / entry.name
            if not _is(entry.is_dir):
                listing.add(entry, path)
            elif not is_hidden(entry.name):
                (links if entry.is_symlink() else waiting).append(path)
    listing.images.sort(key=lambda path: sort_key(path, folder))
    return listing


def _scan_or_note(folder: Path, faults: list[str] | None) -> "list[os.DirEntry[str]]":
    try:
        return scan(folder)
    except InputError as error:
        if faults is None:
            raise
        faults.append(str(error))
        return []


def list_folder(folder: Path) -> tuple[list[str], Listing]:
    """(names of the folders in a folder, what files lie beside them), hidden ones left out."""
    files, names = Listing(), []
    for entry in scan(folder):
        if not _is(entry.is_dir):
            files.add(entry, folder / entry.name)
        elif not is_hidden(entry.name):
            names.append(entry.name)
    return names, files


def scan(folder: Path) -> "list[os.DirEntry[str]]":
    """What lies in a folder, by name; InputError, with the reason, where it cannot be read."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: os.fsencode(entry.name))
    except OSError as error:
        raise InputError(f"{printable(folder)}: cannot be read ({error.strerror})") from None


def is_hidden(name: str) -> bool:
    """Whether a file or folder is none of a user's data, by its name."""
    return name.startswith(".") or name.casefold() in NO_DATA


def sort_key(path: Path, root: Path) -> bytes:
    """The name of a file within `root`, the same on every system.

    With "/" between folders; composed (NFC), as some systems store é as e and an accent; bytes
    that are no UTF-8 as they are.
    """
    name = unicodedata.normalize("NFC", path.relative_to(root).as_posix())
    return name.encode("utf-8", "surrogateescape")


def _is(question: Callable[[], bool], *, broken: bool = False) -> bool:
    """What a directory entry answers; `broken` where a link leads in circles, or out of reach."""
    try:
        return question()
    except OSError:
        return broken
