"""`bnnrun export`: from a packed network to files that other tools run."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from bnnrun.config import ExportConfig, ExportFormat, ExportLayout
from bnnrun.errors import InputError, listed
from bnnrun.export.names import default_name
from bnnrun.files import user_path, write_bytes
from bnnrun.runtime import file
from bnnrun.runtime.model import PackedModel
from bnnrun.table import print_table


@dataclass(frozen=True)
class Source:
    """The packed network that is exported.

    Attributes:
        name:   of the functions and files; not checked yet
        sha256: of the packed file
    """

    model: PackedModel
    name: str
    sha256: str


@dataclass(frozen=True)
class Exported:
    """What an export writes and prints.

    Attributes:
        files: content by path below the folder `out`; of a format of one file that file alone
        table: (columns, rows), printed after the files are written
        notes: lines that are printed after the table
    """

    files: dict[str, bytes]
    table: tuple[list[str], list[list[str]]]
    notes: tuple[str, ...] = ()


def export(config: ExportConfig) -> None:
    """Export a packed network, write its files, and print their sizes.

    Raises:
        InputError: no packed network, one that the format cannot express, a name that it does not
            take, or files that are there already
    """
    if config.layout is not ExportLayout.files and config.format is not ExportFormat.c:
        raise InputError(f"layout={config.layout.value}: of format=c alone")
    path = file.find(config.model)
    model = file.load(path)
    source = Source(model, config.name or default_name(path, model), file.sha256(path))
    exported = _exporter(config)(source)
    out = _place(config, path, source.name)
    targets = {
        (out / relative if config.format is ExportFormat.c else out): content
        for relative, content in exported.files.items()
    }
    there = [str(target) for target in targets if target.exists()]
    if there and not config.overwrite:
        raise InputError(f"{listed(there)}: there already; overwrite=true replaces them, out= and "
                         "name= name others")  # fmt: skip
    for target, content in targets.items():
        write_bytes(target, content)
        print(f"{target}: {len(content):,} bytes")
    print_table(*exported.table)
    for note in exported.notes:
        print(note)


def _exporter(config: ExportConfig) -> Callable[[Source], Exported]:
    """The function of a format; its module is imported only now, for its packages."""
    if config.format is ExportFormat.c:
        from bnnrun.export.c import export_c

        return lambda source: export_c(source, config.layout)
    if find_spec("onnx") is None:
        raise InputError(
            f"format={config.format.value}: the package onnx is not installed; "
            "`pip install 'bnnrun[onnx]'`"
        )
    if config.format is ExportFormat.onnx:
        from bnnrun.export.onnx import export_onnx

        return export_onnx
    from bnnrun.export.qonnx import export_qonnx

    return export_qonnx


def _place(config: ExportConfig, path: Path, name: str) -> Path:
    """The folder of the C files, or the ONNX file."""
    if config.out:
        return user_path(config.out)
    ending = {ExportFormat.c: "_c", ExportFormat.onnx: ".onnx", ExportFormat.qonnx: "_qonnx.onnx"}
    return path.parent / f"{name}{ending[config.format]}"
