"""`bnnrun doctor`: what works on this machine, what does not, and why."""

import importlib.util
import os
import shutil
import time

from bnnrun import machine
from bnnrun.config import DoctorConfig
from bnnrun.data import PUBLISHED
from bnnrun.data.published import locate, unusual_folder, why_absent
from bnnrun.errors import InputError
from bnnrun.files import user_path
from bnnrun.gemm import cuda_device
from bnnrun.precompile import precompile
from bnnrun.table import print_table


def doctor(config: DoctorConfig) -> None:
    """Print a line for each thing that bnnrun needs or can use.

    Raises:
        InputError: kernels are to be compiled, and Numba cannot, or no folder can hold them
        RunError:   one of the networks that they are compiled for does not run
    """
    rows = [
        ["python and packages", "ok", ", ".join(f"{k} {v}" for k, v in machine.versions().items())]
    ]
    rows += [_processor(), *_kernels(compile_all=config.compile)]
    rows += [*_gpu(), *_data(config.root), _disk(config.results_dir)]
    print_table(["what", "state", "detail"], rows)


def _processor() -> list[str]:
    cpu = machine.cpu()
    features = " ".join(cpu["features"]) or "no vector extensions found"
    detail = (
        f"{cpu['model']}, {cpu['cores']} cores, {cpu['memory_bytes'] / 2**30:.0f} GiB; {features}"
    )
    return ["processor", "ok", detail]


def _kernels(*, compile_all: bool) -> list[list[str]]:
    """Which popcount algorithm the XNOR product uses here, and where compiled ones go.

    Where `compile_all`, they are compiled.
    """
    try:
        from bnnrun.gemm.compiled import cache_folder, number_of_threads, threading_layer
        from bnnrun.gemm.instructions import HAS_FAST_BYTES, HAS_POPCOUNT, HAS_TERNARY

        layer = threading_layer()
    except InputError as error:  # a variable of Numba's
        if compile_all:
            raise
        return [["xnor, processor", "broken", str(error)]]

    algorithm = "vector popcount" if HAS_POPCOUNT else "carry-save adders"
    width = "512-bit vectors" if HAS_TERNARY else "vectors of less than 512 bits"
    first = "products of bytes" if HAS_FAST_BYTES else "bit planes"
    threads = f"{number_of_threads(0)} threads by {layer}"
    detail = f"{algorithm}, {width}; first layer by {first}; {threads}"
    product = ["xnor, processor", "ok", detail]
    folder = cache_folder()
    if folder is not None:
        began = time.perf_counter()
        if compile_all:
            precompile()
        compiled = f"; compiled in {time.perf_counter() - began:.0f} s" if compile_all else ""
        return [product, ["compiled kernels", "ok", f"kept in {folder}{compiled}"]]
    detail = (
        "no folder can be written to: each process compiles them anew; set "
        "NUMBA_CACHE_DIR to one that can be"
    )
    if compile_all:
        raise InputError(f"compile=true: {detail}")
    return [product, ["compiled kernels", "absent", detail]]


def _gpu() -> list[list[str]]:
    """Whether PyTorch and CuPy each see a CUDA device, and if not, why."""
    import torch

    gpu = machine.gpu()
    if gpu is not None:
        detail = f"{gpu['model']}, cc {gpu['compute_capability']}, driver {gpu['driver']}"
        rows = [["gpu, PyTorch", "ok", detail]]
    elif torch.version.cuda is None:
        rows = [["gpu, PyTorch", "absent", "this PyTorch is built without CUDA"]]
    elif shutil.which("nvidia-smi") is None:
        rows = [
            ["gpu, PyTorch", "absent", "no NVIDIA driver found; training runs on the processor"]
        ]
    else:
        reason = f"a driver is there, but PyTorch's CUDA {torch.version.cuda} does not start on it"
        rows = [["gpu, PyTorch", "absent", reason]]
    return [*rows, _cupy()]


def _cupy() -> list[str]:
    installed = [name for name in machine.versions() if name.startswith("cupy")]
    if len(installed) > 1:
        return [
            "gpu, CuPy",
            "broken",
            f"{' and '.join(installed)} exclude each other: uninstall one",
        ]
    if not installed or importlib.util.find_spec("cupy") is None:
        return ["gpu, CuPy", "absent", "pip install cupy-cuda13x (or cupy-cuda12x by your driver)"]
    try:
        cupy = cuda_device.import_cupy()
        available = cupy.cuda.is_available()
    except Exception as error:  # whatever a half-installed CUDA raises, the doctor goes on
        return ["gpu, CuPy", "broken", " ".join(str(error).split())]
    state = "ok" if available else "absent"
    return ["gpu, CuPy", state, f"{installed[0]} {'sees' if available else 'sees no'} CUDA device"]


def _data(root: str) -> list[list[str]]:
    """Which data sets can be read, by the places where their readers look."""
    rows = []
    for name, files in PUBLISHED.items():
        places = {file: locate(root, file) for file in files if not file.optional}
        missing = [file for file, (path, _) in places.items() if not path.is_file()]
        state = "absent" if missing else "ok"
        detail = f"under {root}"
        if missing:
            detail += f": no {', '.join(file.path for file in missing)}"
            detail += f"; {why}" if (why := why_absent(root, missing[0])) else ""
        elif folders := {unusual_folder(root, *place) for place in places.values()} - {None}:
            detail += f", in {', '.join(sorted(map(str, folders)))}"
        rows.append([f"data, {name}", state, detail if files else "bundled with scikit-learn"])
    return rows


def _disk(results_dir: str) -> list[str]:
    """Free space where the records would go; nothing is made there."""
    path = user_path(results_dir).resolve()
    there = next(p for p in (path, *path.parents) if p.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        return ["disk", "broken", f"results_dir={results_dir}: {there} cannot be written to"]
    free = shutil.disk_usage(there).free
    return ["disk", "ok", f"{free / 2**30:.0f} GiB free; records go to {path}"]
