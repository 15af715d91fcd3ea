"""The machine and the software that a number was measured with."""

import contextlib
import os
import platform
import subprocess
import sys
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from bnnrun import __version__

PACKAGES = (
    "torch", "torchvision", "cupy-cuda13x", "cupy-cuda12x", "numpy", "numba",
    "hydra-core", "omegaconf", "onnx", "onnxruntime", "pandas", "rich", "safetensors",
    "scikit-learn", "scipy",
)  # fmt: skip

# Instruction sets that decide how fast a product of bits, bytes or floats can be.
FEATURES = (
    "avx2", "fma", "avx512f", "avx512bw", "avx512_vnni", "avx512_vpopcntdq", "avx512_bf16",
    "amx_int8", "asimd", "asimddp", "sve",
)  # fmt: skip


def versions() -> dict[str, str]:
    """Installed version of each package that matters; those not installed are left out."""
    installed = {"python": platform.python_version(), "bnnrun": __version__}
    for name in PACKAGES:
        try:
            installed[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return installed


@cache
def cpu() -> dict[str, Any]:
    """Model, cores, instruction sets and memory of this machine.

    The model is the system's name for it with LLVM's for its microarchitecture, as in
    "AMD EPYC (znver5)": on a virtual machine the first is often that of a whole family.
    """
    from llvmlite.binding import get_host_cpu_name

    model, flags = platform.processor() or platform.machine(), ""
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = [
            line.partition(":")
            for line in info.read_text(encoding="utf-8", errors="replace").splitlines()
        ]
        fields = {key.strip(): value.strip() for key, _, value in lines}
        model = fields.get("model name", model)
        flags = fields.get("flags", fields.get("Features", ""))
    return {
        "model": f"{model} ({get_host_cpu_name()})",
        "cores": cores(),
        "features": [name for name in FEATURES if name in flags.split()],
        "memory_bytes": psutil.virtual_memory().total,
    }


def cores() -> int:
    """Processors that this process may use; of a SLURM task those that it was given."""
    if hasattr(os, "sched_getaffinity"):
        number = len(os.sched_getaffinity(0))
    else:
        number = os.cpu_count() or 1
    slurm_cpus = os.environ.get("SLURM_CPUS_PER_TASK", "")  # not every cluster binds tasks to them
    return min(number, int(slurm_cpus)) if slurm_cpus.isdigit() and int(slurm_cpus) else number


def free_memory_bytes() -> int:
    """Memory that this process can still have: the system's, or what its container is given."""
    free = int(psutil.virtual_memory().available)
    most, used = (Path(f"/sys/fs/cgroup/memory.{name}") for name in ("max", "current"))
    with contextlib.suppress(OSError, ValueError):  # no container, or no limit ("max")
        free = min(free, int(most.read_text("utf-8")) - int(used.read_text("utf-8")))
    return max(0, free)


def stolen_s() -> float | None:
    """Processor time since the start that a hypervisor gave to others; None where it is not told.

    What neighbours slow down without taking it, such as a core that two share, is not in it.
    """
    times = psutil.cpu_times()
    return float(times.steal) if hasattr(times, "steal") else None


def peak_memory_bytes() -> int:
    """Largest resident size of this process so far."""
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    # getrusage counts on from the process that started this one.
    status = Path("/proc/self/status")
    lines = status.read_text(encoding="utf-8").splitlines() if status.exists() else []
    for line in lines:
        if line.startswith("VmHWM:"):
            return 1024 * int(line.split()[1])
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


@cache
def gpu() -> dict[str, Any] | None:
    """Name, memory, compute capability and driver of the first CUDA device; None without one."""
    import torch

    if not torch.cuda.is_available():
        return None
    properties = torch.cuda.get_device_properties(0)
    return {
        "model": properties.name,
        "memory_bytes": properties.total_memory,
        "compute_capability": f"{properties.major}.{properties.minor}",
        "multiprocessors": properties.multi_processor_count,
        "cuda": torch.version.cuda,
        "driver": nvidia_driver(),
    }


def nvidia_driver() -> str:
    """Version of the NVIDIA driver."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        shown = _output(command)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return shown.splitlines()[0].strip()


@cache
def source_state() -> dict[str, Any]:
    """Commit of the code that runs and whether its tree was clean, when this was first asked.

    A run asks before it begins: its code is loaded then, whatever is committed while it goes on.
    `BNNRUN_COMMIT` names the commit where the code travels without its repository; a wheel has
    neither and says so.
    """
    if commit := os.environ.get("BNNRUN_COMMIT"):
        return {"commit": commit, "clean": None}
    here = Path(__file__).resolve().parent
    commit = _git(here, "rev-parse", "HEAD")
    if commit is None or _git(here, "ls-files", "--error-unmatch", "machine.py") is None:
        return {"commit": None, "clean": None}
    # Records are written while runs go on: only what can change a number makes a tree dirty.
    status = _git(here.parent, "status", "--porcelain", "--", "bnnrun", "conf", "kernels")
    return {"commit": commit, "clean": status == ""}


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        return _output(["git", "-C", str(folder), *arguments]).strip()
    except (OSError, subprocess.SubprocessError):
        return None


def _output(command: list[str]) -> str:
    """What a program prints, whatever the locale; OSError or SubprocessError where it fails."""
    shown = subprocess.run(
        command, capture_output=True, encoding="utf-8", errors="replace", timeout=20, check=True
    )
    return shown.stdout
