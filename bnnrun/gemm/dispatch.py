"""Kernel dispatch: a GPU runs the fastest XNOR kernel that it supports and that passed its trial.

xnor_gemm_wgmma is tested before its first use, because some compilers miscompile products of
warpgroups. The verdict is stored beside CuPy's compiled kernels, under a hash of the source, the
device, the compiler and the driver. A trial that did not return is not repeated: it may have hung
the device.
"""

import hashlib
import json
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np

from bnnrun.gemm import reference
from bnnrun.gemm.bits import pack
from bnnrun.gemm.cuda import OUTPUTS, VARIANTS, Bits, Xnor
from bnnrun.gemm.cuda_device import Device, source

TRIAL_KERNEL = "xnor_gemm_wgmma"
# (M, N, K): one bit; past the edges of a tile and of a K step; more steps than pipeline buffers.
TRIAL_SHAPES = ((1, 1, 1), (129, 257, 1025), (300, 600, 9000))
RIGHT, BEGUN = "right", "an earlier attempt did not come back"

_verdicts: dict[str, str] = {}  # of this process, by hash


def variants(device: Device) -> tuple[str, ...]:
    """Names of the kernels that a device can run, the slowest first."""
    has = [
        name
        for name, variant in VARIANTS.items()
        if variant.min_capability <= device.capability <= variant.max_capability
    ]
    return tuple(name for name in has if name != TRIAL_KERNEL or _works(device))


def products(device: Device, kernel: str = "auto") -> Xnor:
    """XNOR products on a device by the kernel of this name; "auto" is the fastest.

    The choice does not depend on the shape: a half-empty tile of a tensor-core kernel takes no
    longer than a full tile of a slower kernel.
    """
    return Xnor(device, variants(device)[-1] if kernel == "auto" else kernel)


def _works(device: Device) -> bool:
    """Whether TRIAL_KERNEL computes right products here; prints why not, once a process."""
    depends_on = (source(TRIAL_KERNEL), json.dumps(device.describe(), sort_keys=True))
    key = hashlib.sha256("\0".join(depends_on).encode()).hexdigest()[:16]
    if key not in _verdicts:
        verdict_file = device.cache / f"bnnrun-{TRIAL_KERNEL}-{key}.txt" if device.cache else None
        verdict = _read(verdict_file)
        if verdict is None:
            _write(verdict_file, BEGUN)
            verdict = _try(device)
            _write(verdict_file, verdict)
        if verdict != RIGHT:
            hint = f"; without {verdict_file} it is tried again" if verdict_file else ""
            print(f"bnnrun: {TRIAL_KERNEL} is not used: {verdict}{hint}", file=sys.stderr)
        _verdicts[key] = verdict
    return _verdicts[key] == RIGHT


def _try(device: Device) -> str:
    """Run the trial: RIGHT, or one line that says what is wrong."""
    try:
        xnor = Xnor(device, TRIAL_KERNEL)
        for shape in TRIAL_SHAPES:
            if (output := _first_wrong_output(xnor, *shape)) is not None:
                return f"a product of {shape} has a wrong answer as {output}"
    except Exception as error:  # of a compiler or driver, of any type: another kernel is used
        return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return RIGHT


def _first_wrong_output(xnor: Xnor, m: int, n: int, k: int) -> str | None:
    """The first output type in which a random product differs from the reference, or None."""
    rng, device = np.random.default_rng(k), xnor.device
    rows, columns = (pack(rng.random((size, k)) < 0.5) for size in (m, n))
    s = reference.multiply(rows, columns, k)
    a, w = xnor.encode(rows, k), xnor.encode(columns, k)
    scale, shift = (rng.uniform(1, 2, n).astype(np.float32) for _ in range(2))
    expected = {"int32": s, "int16": s, "float32": (s * scale.astype(np.float64) + shift)}
    for dtype_name, dtype in OUTPUTS.items():
        by = (device.put(scale), device.put(shift)) if dtype_name == "float32" else (None, None)
        s_device = device.get(xnor.multiply(a, w, dtype_name, *by))
        if (s_device != expected[dtype_name].astype(dtype)).any():
            return dtype_name
    d = (k - s) // 2
    thresholds = rng.choice(d.ravel(), n).astype(np.int32)
    out: Bits = xnor.multiply_to_bits(a, w, device.put(thresholds))
    expected_bits = pack(d <= thresholds)
    words, used = device.get(out.data), expected_bits.shape[1]
    as_bits = (words[:, :used] == expected_bits).all() and not words[:, used:].any()
    ones = (device.get(out.ones) == (d <= thresholds).sum(axis=1)).all()
    return None if as_bits and ones else "bits"


def _read(verdict_file: Path | None) -> str | None:
    with suppress(OSError):
        return verdict_file.read_text(encoding="utf-8").strip() if verdict_file else None
    return None


def _write(verdict_file: Path | None, verdict: str) -> None:
    """Store a verdict; where no file can be written, the next process runs the trial again."""
    with suppress(OSError):
        if verdict_file:
            verdict_file.parent.mkdir(parents=True, exist_ok=True)
            verdict_file.write_text(f"{verdict}\n", encoding="utf-8")
