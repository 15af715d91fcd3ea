"""`bnnrun doctor`: what works on this machine, what does not, and why."""

import importlib.util
import os
import shutil

from bnnrun import machine
from bnnrun.config import DoctorConfig
from bnnrun.data import PUBLISHED
from bnnrun.files import user_path
from bnnrun.table import print_table


def doctor(config: DoctorConfig) -> None:
    """Print a line for each thing that bnnrun needs or can use."""
    rows = [
        ["python and packages", "ok", ", ".join(f"{k} {v}" for k, v in machine.versions().items())]
    ]
    rows += [_processor(), _kernel(), *_gpu(), *_data(config.root), _disk(config.results_dir)]
    print_table(["what", "state", "detail"], rows)


def _processor() -> list[str]:
    cpu = machine.cpu()
    features = " ".join(cpu["features"]) or "no vector extensions found"
    detail = (
        f"{cpu['model']}, {cpu['cores']} cores, {cpu['memory_bytes'] / 2**30:.0f} GiB; {features}"
    )
    return ["processor", "ok", detail]


def _kernel() -> list[str]:
    """Which of its ways to count bits the XNOR product takes here."""
    import numba

    from bnnrun.gemm import cpu
    from bnnrun.gemm.vector import HAS_BYTE_PRODUCT, HAS_TERNARY

    ways = {cpu.COUNT: "vector population count", cpu.ADDERS: "carry-save adders"}
    width = "512-bit vectors" if HAS_TERNARY else "vectors of less than 512 bits"
    first = "products of bytes" if HAS_BYTE_PRODUCT else "bit planes"
    threads = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
    detail = f"{ways[cpu.BITS]}, {width}; first layer by {first}; {threads} threads"
    return ["xnor, processor", "ok", detail]


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
    import cupy

    try:
        available = cupy.cuda.is_available()
    except Exception as error:  # whatever a half-installed CUDA raises, the doctor goes on
        return ["gpu, CuPy", "broken", " ".join(str(error).split())]
    state = "ok" if available else "absent"
    return ["gpu, CuPy", state, f"{installed[0]} {'sees' if available else 'sees no'} CUDA device"]


def _data(root: str) -> list[list[str]]:
    rows = []
    folder = user_path(root)
    for name, files in PUBLISHED.items():
        missing = [f.path for f in files if not f.optional and not (folder / f.path).is_file()]
        state = "absent" if missing else "ok"
        detail = f"under {root}: no {', '.join(missing)}" if missing else f"under {root}"
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
