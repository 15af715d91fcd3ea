"""Which kernel of the XNOR product a GPU runs: the fastest that it has and that was seen to work.

xnor_gemm_wgmma is tried before it is used: some compilers get products of warpgroups wrong. What
came of it is kept beside CuPy's machine code, for this text on this device by this compiler and
driver. An attempt that did not come back is not repeated: it may have taken the device with it.
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

TRIED = "xnor_gemm_wgmma"
# (M, N, K): a lone bit; past the edges of a tile and of a step; more steps than there are buffers.
SHAPES = ((1, 1, 1), (129, 257, 1025), (300, 600, 9000))
RIGHT, BEGUN = "right", "an earlier attempt did not come back"

_found: dict[str, str] = {}  # in this process


def variants(device: Device) -> tuple[str, ...]:
    """The kernels that a device has, the slowest first."""
    has = [name for name, of in VARIANTS.items() if of.first <= device.capability <= of.last]
    return tuple(name for name in has if name != TRIED or _works(device))


def products(device: Device, kernel: str = "auto") -> Xnor:
    """Products on a device, by the kernel of this name; "auto": by the fastest.

    The shape has no say: a tile of tensor cores that is half empty takes as long as a full one
    of a slower kernel.
    """
    return Xnor(device, variants(device)[-1] if kernel == "auto" else kernel)


def _works(device: Device) -> bool:
    """Whether TRIED multiplies rightly here; if not, a line says so, once a process."""
    made_of = (source(TRIED), json.dumps(device.describe(), sort_keys=True))
    key = hashlib.sha256("\0".join(made_of).encode()).hexdigest()[:16]
    if key not in _found:
        note = device.cache / f"bnnrun-{TRIED}-{key}.txt" if device.cache else None
        found = _read(note)
        if found is None:
            _write(note, BEGUN)
            found = _try(device)
            _write(note, found)
        if found != RIGHT:
            again = f"; without {note} it is tried again" if note else ""
            print(f"bnnrun: {TRIED} is not used: {found}{again}", file=sys.stderr)
        _found[key] = found
    return _found[key] == RIGHT


def _try(device: Device) -> str:
    """RIGHT, or what is wrong, in one line."""
    try:
        xnor = Xnor(device, TRIED)
        for shape in SHAPES:
            if (wrong := _wrong(xnor, *shape)) is not None:
                return f"a product of {shape} has a wrong answer as {wrong}"
    except Exception as error:  # whatever a compiler or a driver raises, there is another kernel
        return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return RIGHT


def _wrong(xnor: Xnor, m: int, n: int, k: int) -> str | None:
    """Which output of a random product is not that of the definition; None: every one is."""
    rng, device = np.random.default_rng(k), xnor.device
    rows, columns = (pack(rng.random((size, k)) < 0.5) for size in (m, n))
    s = reference.multiply(rows, columns, k)
    a, w = xnor.encode(rows, k), xnor.encode(columns, k)
    scale, shift = (rng.uniform(1, 2, n).astype(np.float32) for _ in range(2))
    expected = {"int32": s, "int16": s, "float32": (s * scale.astype(np.float64) + shift)}
    for kind, dtype in OUTPUTS.items():
        by = (device.put(scale), device.put(shift)) if kind == "float32" else (None, None)
        if (device.get(xnor.multiply(a, w, kind, *by)) != expected[kind].astype(dtype)).any():
            return kind
    d = (k - s) // 2
    limit = rng.choice(d.ravel(), n).astype(np.int32)
    out: Bits = xnor.multiply_to_bits(a, w, device.put(limit))
    right = pack(d <= limit)
    words = device.get(out.data)
    as_bits = (words[:, : right.shape[1]] == right).all() and not words[:, right.shape[1] :].any()
    ones = (device.get(out.ones) == (d <= limit).sum(axis=1)).all()
    return None if as_bits and ones else "bits"


def _read(note: Path | None) -> str | None:
    with suppress(OSError):
        return note.read_text(encoding="utf-8").strip() if note else None
    return None


def _write(note: Path | None, found: str) -> None:
    """Where nothing can be kept, the next process tries again."""
    with suppress(OSError):
        if note:
            note.parent.mkdir(parents=True, exist_ok=True)
            note.write_text(f"{found}\n", encoding="utf-8")
