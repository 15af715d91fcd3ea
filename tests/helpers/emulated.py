"""CUDA kernels on the processor: a .cu file, cuda_on_cpu.h and a `main`, compiled by g++.

Each launch is a process of its own: what a kernel does wrong ends that process and fails a test,
not the test session; and a program built with sanitizers runs as any other does.
"""

import atexit
import functools
import hashlib
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

HEADER = Path(__file__).parent / "cuda_on_cpu.h"
KERNELS = Path(__file__).parents[2] / "kernels"
SHARED = "BNNRUN_TEST_PROGRAMS"  # the folder of programs that processes of one session share

# Kernels look at the same bytes as words and as vectors, as CUDA's compiler allows.
OPTIONS = ("-std=c++17", "-fno-strict-aliasing", "-ffp-contract=off")
COUNTED = ("-O1", "--coverage")
CHECKED = ("-O0", "-g1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
# Memory that is still held when a launch ends is no concern of a kernel.
ENVIRONMENT = os.environ | {
    "ASAN_OPTIONS": "detect_leaks=0",
    "UBSAN_OPTIONS": "print_stacktrace=1",
}
# It does support them, as cuda_on_cpu.h tells it of every switch.
NO_NEWS = re.compile(r"==\d+==WARNING: ASan doesn't fully support makecontext.*\n")
DYNAMIC = re.compile(r"extern\s+__shared__\s+(?:__align__\(\d+\)\s+)?([\w ]+?)\s*\b(\w+)\[\];")

Argument = NDArray[Any] | np.generic | None


class EmulationError(AssertionError):
    """A launch that did not come to its end; the message says where and why."""


@dataclass(frozen=True)
class Emulated:
    """A kernel as a program."""

    program: Path

    def __call__(
        self,
        grid: Sequence[int],
        block: Sequence[int],
        arguments: Sequence[Argument],
        shared_bytes: int = 0,
        backwards: bool = False,
    ) -> None:
        """Launches the kernel and brings back what it wrote into its arrays.

        Args:
            grid, block:   one to three sizes
            arguments:     in the kernel's order: contiguous arrays for pointers, None for null
                           pointers, NumPy scalars of the right size for numbers
            shared_bytes:  of dynamic shared memory
            backwards:     blocks, warps and lanes in descending order

        Raises:
            EmulationError: what the emulation or a sanitizer found wrong
        """
        sizes = [(*size, 1, 1)[:3] for size in (tuple(grid), tuple(block))]
        request = [struct.pack("=8I", *sizes[0], *sizes[1], shared_bytes, backwards)]
        for argument in arguments:
            if argument is None:
                request.append(struct.pack("=q", -1))
                continue
            if isinstance(argument, np.ndarray) and not argument.flags.c_contiguous:
                raise ValueError("a kernel takes no strides: an array is not contiguous")
            request += [struct.pack("=q", argument.nbytes), argument.tobytes()]
        done = subprocess.run(
            [self.program],
            input=b"".join(request),
            capture_output=True,
            check=False,
            env=ENVIRONMENT,
            timeout=200,
        )
        if done.returncode:
            message = NO_NEWS.sub("", done.stderr.decode(errors="replace"))
            raise EmulationError(message or f"ended with status {done.returncode}")
        self._bring_back(done.stdout, arguments)

    @staticmethod
    def _bring_back(output: bytes, arguments: Sequence[Argument]) -> None:
        """The program writes the number of each array that is no constant, and its bytes."""
        at = 0
        while at < len(output):
            (index,) = struct.unpack_from("=q", output, at)
            array = arguments[index]
            assert isinstance(array, np.ndarray)
            result = np.frombuffer(output, array.dtype, array.size, at + 8)
            array[...] = result.reshape(array.shape)
            at += 8 + array.nbytes


def kernel(name: str, *, checked: bool = False, **defines: object) -> Emulated:
    """kernels/<name>.cu, whose entry point is <name>, with `defines` as -D options.

    `checked` builds it with sanitizers; otherwise the lines that run are counted.
    """
    return compiled(_text(name), name, checked=checked, **defines)


def compiled(text: str, name: str, *, checked: bool = False, **defines: object) -> Emulated:
    """The kernel <name> of a .cu text."""
    if (why := missing(checked)) is not None:
        pytest.skip(why)
    return Emulated(_start(text, name, checked, defines).result())


def start(name: str, *, checked: bool = False, **defines: object) -> "Future[Path]":
    """Has the program of `kernel` made meanwhile, two at a time."""
    return _start(_text(name), name, checked, defines)


def missing(checked: bool = False) -> str | None:
    """What keeps this machine from running kernels so; None where nothing does."""
    if sys.platform != "linux":
        return "cuda_on_cpu.h is for Linux: it asks the C library where shared memory lies"
    if shutil.which("g++") is None:
        return "no g++ here: it compiles the CUDA kernels for the processor"
    if checked and not _has_sanitizers():
        return "g++ here has no libraries of the sanitizers"
    return None


def executed_lines(programs: Sequence[Emulated]) -> dict[int, int]:
    """How often each executable line of a kernel has run, in all these variants together."""
    if shutil.which("gcov") is None:
        pytest.skip("no gcov here: it tells which lines have run")
    counts: dict[int, int] = {}
    for program in programs:
        folder = program.program.parent
        (data,) = folder.glob("*.gcda")  # its name hangs on the compiler's version
        command = ["gcov", "--json-format", "--stdout", str(data)]
        report = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
        for file in report["files"]:
            if Path(file["file"]).suffix == ".cu":
                for line in file["lines"]:
                    number = line["line_number"]
                    counts[number] = counts.get(number, 0) + line["count"]
    return counts


def _text(name: str) -> str:
    return (KERNELS / f"{name}.cu").read_text(encoding="utf-8")


def _start(text: str, name: str, checked: bool, defines: dict[str, object]) -> "Future[Path]":
    """The program, of which a process asks for one for each text and options."""
    options = tuple(f"-D{key}" if value is None else f"-D{key}={value}"
                    for key, value in defines.items())  # fmt: skip
    key = (text, name, options + (CHECKED if checked else COUNTED))
    if key not in _builds or _builds[key].cancelled():
        _builds[key] = _pool().submit(_build, _session_folder(), *key)
    return _builds[key]


def _build(session_folder: Path, text: str, name: str, options: tuple[str, ...]) -> Path:
    """Compiles a kernel, and a `main` that launches it, in a folder of their own.

    Processes of one test session share the programs: who comes second waits for who compiles.
    """
    import fcntl  # not on every system; kernels are emulated on Linux alone

    key = hashlib.sha256("\0".join((text, name, *options)).encode()).hexdigest()[:16]
    folder = session_folder / key
    folder.mkdir(exist_ok=True)
    program = folder / "run"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not program.exists():
            _compile(folder, text, name, options).rename(program)
    return program


def _compile(folder: Path, text: str, name: str, options: tuple[str, ...]) -> Path:
    source = folder / f"{name}.cu"
    source.write_text(text, encoding="utf-8")
    dynamic = DYNAMIC.search(text)
    definition, pointer = "", "nullptr"
    if dynamic:
        element, pointer = dynamic.groups()
        size = f"emulation::MOST_SHARED / sizeof({element})"
        definition = f"__shared__ __align__(1024) {element} {pointer}[{size}];\n"
    (folder / "main.cpp").write_text(
        f'#include "{HEADER}"\n#include "{source}"\n{definition}'
        f'int main() {{ return emulation::run("{name}", {name}, {pointer}); }}\n'
    )
    program = folder / "new"
    command = ["g++", *OPTIONS, *options, "-o", str(program), str(folder / "main.cpp")]
    done = subprocess.run(command, capture_output=True, check=False, text=True, cwd=folder)
    if done.returncode:
        raise EmulationError(f"g++ {' '.join(options)}: {name}.cu\n{done.stderr}")
    return program


_builds: dict[tuple[str, str, tuple[str, ...]], "Future[Path]"] = {}


@functools.cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(2)


@functools.cache
def _session_folder() -> Path:
    if (shared := os.environ.get(SHARED)) is not None:
        return Path(shared)
    folder = Path(tempfile.mkdtemp(prefix="bnnrun-emulated-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@functools.cache
def _has_sanitizers() -> bool:
    program = _session_folder() / "empty"
    command = ["g++", "-x", "c++", *CHECKED, "-o", str(program), "-"]
    return not subprocess.run(
        command, input=b"int main() {}", capture_output=True, check=False, cwd=_session_folder()
    ).returncode
