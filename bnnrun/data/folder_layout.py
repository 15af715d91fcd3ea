"""Which folders of a user's images are parts, which are classes, and which are neither."""

import json
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bnnrun.data.image_files import Listing, find_images, list_folder
from bnnrun.errors import InputError, listed, nearest, printable
from bnnrun.files import user_path

PARTS = ("train", "valid", "test")
NAMES = {
    "train": "train", "training": "train",
    "val": "valid", "valid": "valid", "validation": "valid",
    "test": "test", "testing": "test",
}  # fmt: skip
EXPECTED = "PATH/CLASS/*.png, or PATH/train/CLASS/*.png with folders val and test beside train"
RESULTS = {"runs", "figures", "tables", "models"}  # folders of a results_dir


@dataclass(frozen=True)
class Part:
    """A folder that holds the folders of the classes.

    Attributes:
        classes: the folders of each class, by its name in composed letters (NFC)
        loose:   the files beside them
    """

    folder: Path
    classes: dict[str, list[Path]]
    loose: Listing


@dataclass(frozen=True)
class Layout:
    """How a folder of images is laid out.

    Attributes:
        parts: by name; "train" alone, and `root` itself, where the classes lie in `root`
        loose: the files in `root` beside its parts
        notes: what a user should know of it, in lines
    """

    root: Path
    parts: dict[str, Part]
    loose: Listing
    notes: tuple[str, ...]

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, those of train where there is one."""
        return tuple(self.lead.classes)

    def class_folders(self) -> Iterator[Path]:
        """The folders of every class in every part."""
        for part in self.parts.values():
            for folders in part.classes.values():
                yield from folders

    @property
    def lead(self) -> Part:
        """The part that says which classes there are: train, where there is one."""
        return next(self.parts[part] for part in ("train", "test", "valid") if part in self.parts)


def find_layout(path: str) -> Layout:
    """The parts and classes in a folder, by names alone: no image is read.

    Raises:
        InputError: there are none, or it is not certain which
    """
    if not path:
        raise InputError(
            "dataset.path: not given; expected the folder of your images, one folder a class in it"
        )
    root = user_path(path)
    if not root.is_dir():
        raise InputError(f"dataset.path={printable(path)}: no such folder; expected {EXPECTED}")
    names, ours, loose = _list(root)
    folders = _part_folders(root, names)
    others = [printable(name) for name in names if root / name not in folders.values()]
    notes = []
    if ours:
        notes.append(f"left out: {listed(ours)} in {printable(root)}, bnnrun's own runs or results")
    if folders and others:
        notes.append(f"left out: {listed(others)}, no part and without images")
    parts = {part: _read_part(folder) for part, folder in (folders or {"train": root}).items()}
    layout = Layout(root, parts, loose if folders else Listing(), ())
    _check_classes(layout)
    return Layout(root, parts, layout.loose, (*notes, *_notes(layout)))


def _list(folder: Path) -> tuple[list[str], list[str], Listing]:
    """(folders of a user's own in a folder, folders that bnnrun made, the files beside them)."""
    names, files = list_folder(folder)
    ours = [name for name in names if is_ours(folder / name)]
    return [name for name in names if name not in ours], ours, files


def _part_folders(root: Path, names: list[str]) -> dict[str, Path]:
    """The folders of the parts in the order of PARTS; none where `root` holds the classes.

    A folder is that of a part by its name and by the folders in it: a class may be called train.
    """
    named = [name for name in names if name.casefold() in NAMES]
    others = [name for name in names if name not in named]
    folders: dict[str, Path] = {}
    for part in PARTS:
        of_part = [name for name in named if NAMES[name.casefold()] == part]
        if len(of_part) > 1:
            raise InputError(
                f"{printable(root)}: {' and '.join(of_part)} both name the part {part}; "
                "put their images together, or move one of them out of it"
            )
        if of_part:
            folders[part] = root / of_part[0]
    flat = [part for part, folder in folders.items() if not _list(folder)[0]]
    if flat == list(folders) == ["train"] and others:
        return {}
    if folders and (classes := [o for o in others if find_images(root / o).images]):
        raise InputError(
            f"{printable(root)}: {listed(named)} beside {listed(map(printable, classes))}: parts "
            f"of the data set, or classes? Expected {EXPECTED}; rename a class that is called so"
        )
    for part in flat:
        raise InputError(
            f"{printable(folders[part])}: no folder of a class in it; expected "
            f"{printable(folders[part])}/CLASS/*.png"
        )
    return folders


def _read_part(folder: Path) -> Part:
    """The classes of a part; InputError where a name is not valid text or two are one folder."""
    names, _, loose = _list(folder)
    classes: dict[str, list[Path]] = {}
    real: dict[Path, str] = {}
    for name in names:
        if any("\ud800" <= char <= "\udfff" for char in name):
            raise InputError(
                f"{printable(folder / name)}: the name of a class that is not valid UTF-8 text; "
                "rename the folder"
            )
        if (other := real.setdefault((folder / name).resolve(), name)) != name:
            raise InputError(
                f"{printable(folder)}: {other} and {name} are one folder by a link; "
                "expected a folder for each class"
            )
        classes.setdefault(unicodedata.normalize("NFC", name), []).append(folder / name)
    return Part(folder, dict(sorted(classes.items())), loose)


def _check_classes(layout: Layout) -> None:
    """InputError where the classes are too few or many, differ by part, or PATH is mistaken."""
    lead = layout.lead
    count, where = len(lead.classes), printable(lead.folder)
    if not 2 <= count <= 256:
        holds = f"{count} folders"
        if lead.loose.images:
            holds += f" and {len(lead.loose.images):,} images"
        raise InputError(
            f"{where}: {holds} in it, expected one folder for each class, 2 to 256"
            f"{meant(lead.folder)}"
        )
    for name, folders in lead.classes.items():
        if any(_has_parts(folder) for folder in folders):
            raise InputError(
                f"{where}: {name} holds parts of a data set and is no class"
                f"{_is_meant(folders[0])}; expected {EXPECTED}"
            )
    for part in layout.parts.values():
        for name, folders in part.classes.items():
            if name not in lead.classes:
                raise InputError(
                    f"{printable(folders[0])}: no such class in {printable(lead.folder.name)}; "
                    f"{nearest(name, lead.classes)}"
                )


def meant(folder: Path) -> str:
    """What dataset.path was probably meant to be, above or below; nothing if not known."""
    above = folder.resolve().parent
    if _images(folder):
        return _is_meant(above) if _is_data_set(above) else ""
    names = _names(folder)
    below = [folder / name for name in names if _is_data_set(folder / name)]
    if not below and len(names) == 1:
        return meant(folder / names[0]) if not _images(folder / names[0]) else ""
    return _is_meant(below[0]) if len(below) == 1 else ""


def _is_meant(folder: Path) -> str:
    return f"; is dataset.path={printable(folder)} meant?"


def _is_data_set(folder: Path) -> bool:
    """Whether a folder holds classes or parts: at a glance, as it may be anything."""
    return _has_parts(folder) or len(list(_with_images(folder))) >= 2


def _has_parts(folder: Path) -> bool:
    """Whether one of the folders in a folder is named as a part and holds classes."""
    names = [name for name in _names(folder) if name.casefold() in NAMES]
    return any(next(_with_images(folder / name), None) is not None for name in names)


def _with_images(folder: Path) -> Iterator[str]:
    """The folders in a folder that hold images themselves; none where there are also images."""
    if not _images(folder):
        yield from (name for name in _names(folder) if _images(folder / name))


def _names(folder: Path) -> list[str]:
    try:
        return list_folder(folder)[0]
    except InputError:  # a folder that was not asked for
        return []


def _images(folder: Path) -> list[Path]:
    try:
        return list_folder(folder)[1].images
    except InputError:
        return []


def _notes(layout: Layout) -> Iterator[str]:
    """What looks as if it was not meant so, and how names were taken."""
    lead = layout.lead
    for name, folders in lead.classes.items():
        inner = [printable(name) for name in _with_images(folders[0])]
        if len(inner) > 1:
            yield (
                f"{printable(name)}: its images lie in folders below ({listed(inner, 3)}), taken "
                f"as one class; if those are the classes, dataset.path={printable(folders[0])}"
            )
            break  # the first one says it
    for name, folders in lead.classes.items():
        if len(folders) > 1:
            yield f"{name}: {len(folders)} folders, named in different Unicode forms, as one class"
    real: dict[Path, str] = {}
    for name, part in layout.parts.items():
        if (other := real.setdefault(part.folder.resolve(), name)) != name:
            yield f"{other} and {name} are one folder: the same images"
    above = layout.root.resolve().parent
    if lead.folder == layout.root and layout.root.resolve().name.casefold() in NAMES:
        beside = [name for name in _names(above) if name.casefold() in NAMES]
        others = [name for name in beside if above / name != layout.root.resolve()]
        if others:
            yield (
                f"{listed(others)} beside {printable(layout.root)} not read; "
                f"dataset.path={printable(above)} takes them"
            )


def is_ours(folder: Path, depth: int = 3) -> bool:
    """Whether a folder holds bnnrun's own runs or results and nothing else: no class.

    By what it holds, as a class may be called results: run folders of Hydra, or records.
    """
    names, files = list_folder(folder)
    pictures = {path.name for path in files.images}
    if (folder / ".hydra").is_dir() and pictures <= {"filters.png"}:
        return True
    if pictures:
        return False
    if _is_results(folder, names):
        return True
    return depth > 0 and bool(names) and all(is_ours(folder / name, depth - 1) for name in names)


def _is_results(folder: Path, names: list[str]) -> bool:
    """Whether a folder is a results_dir; its runs/ is empty before the first record."""
    if "runs" not in names or not set(names) <= RESULTS:
        return False
    inner, files = list_folder(folder / "runs")
    if inner or files.images or set(files.others) - {".json"}:
        return False
    return not files.others or any(map(_is_record, (folder / "runs").glob("*.json")))


def _is_record(path: Path) -> bool:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and {"checksum", "quantity"} <= content.keys()
