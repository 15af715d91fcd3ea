"""Exported C, compiled with the harness, and what it answers."""

import functools
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from bnnrun.config import ExportLayout
from bnnrun.export.c import export_c
from bnnrun.export.export import Source
from bnnrun.runtime.model import PackedModel
from bnnrun.runtime.reference import ReferenceNetwork

C = Path(__file__).parent / "c"
NAME = "net"
STRICT = ("-std=c99", "-Wall", "-Wextra", "-pedantic", "-Wconversion", "-Werror")
SANITIZED = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")


def needs(*programs: str) -> pytest.MarkDecorator:
    """Skips a test where a program that it runs is not installed."""
    absent = [program for program in programs if shutil.which(program) is None]
    return pytest.mark.skipif(bool(absent), reason=f"needs {', '.join(absent)}")


def write_sources(
    folder: Path, model: PackedModel, layout: ExportLayout = ExportLayout.files
) -> None:
    """The exported files of a network called NAME."""
    exported = export_c(Source(model, NAME, "0" * 64), layout)
    for path, content in exported.files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)


def run(command: Sequence[str | Path], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        list(map(str, command)),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def compile_with(folder: Path, compiler: str, *words: str | Path) -> None:
    """Run a compiler; its messages are the failure."""
    done = run([compiler, *words], folder)
    assert done.returncode == 0, done.stderr


@functools.cache
def links_sanitizers(compiler: str) -> bool:
    """Whether a compiler has its sanitizers' libraries; Debian packs clang's apart from clang."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "empty.c").write_text("int main(void) { return 0; }\n")
        return run([compiler, *SANITIZED, "empty.c", "-o", "empty"], folder).returncode == 0


def build(folder: Path, compiler: str, *flags: str | Path) -> None:
    """The program `harness` of the sources in a folder.

    The test is skipped where the flags ask for sanitizers that the compiler cannot link.
    """
    if set(SANITIZED) <= set(flags) and not links_sanitizers(compiler):
        pytest.skip(f"needs the sanitizers of {compiler}: it cannot link {' '.join(SANITIZED)}")
    of_harness = (
        f"-DNETWORK={NAME}", f'-DHEADER="{NAME}.h"', f"-DPREFIX(x)={NAME.upper()}_##x",
    )  # fmt: skip
    # The harness is C for systems with files, so it is compiled without -ffreestanding.
    compile_with(folder, compiler, *flags, *of_harness, "-I.", C / "harness.c", f"{NAME}.c",
                 "-o", "harness")  # fmt: skip


@dataclass(frozen=True)
class Answers:
    """What the harness wrote of n images: classes (n,), accumulators and scores (n, classes)."""

    classes: np.ndarray
    accumulators: np.ndarray
    scores: np.ndarray


def answers(folder: Path, pixels: np.ndarray, *runner: str) -> Answers:
    """Run the program `harness` on images."""
    (folder / "images.bin").write_bytes(pixels.tobytes())
    done = run([*runner, "./harness"], folder)
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in (folder / "answers.txt").read_text().splitlines()]
    assert len(lines) == len(pixels)
    count = (len(lines[0]) - 2) // 2
    classes, alone = (np.array([int(line[i]) for line in lines]) for i in (0, 1))
    np.testing.assert_array_equal(classes, alone)  # with and without scores
    accumulators = np.array([[int(word) for word in line[2 : 2 + count]] for line in lines])
    scores = np.array([[float(word) for word in line[2 + count :]] for line in lines])
    return Answers(classes, accumulators, scores)


def assert_as_reference(model: PackedModel, pixels: np.ndarray, computed: Answers) -> None:
    """Every sum of the output layer, and the class."""
    accumulators = ReferenceNetwork(model).accumulators(pixels)
    np.testing.assert_array_equal(computed.accumulators, accumulators)
    expected = model.layers[-1].scores(accumulators).argmax(axis=1)
    np.testing.assert_array_equal(computed.classes, expected)
