"""Every CUDA kernel compiles for every architecture it claims, with no GPU needed.

The compiler is the one that CuPy uses at run time, NVRTC. Every variant is compiled for every
architecture.
"""

import importlib.util
import multiprocessing
import re
import subprocess
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

nvrtc = pytest.importorskip(
    "cupy_backends.cuda.libs.nvrtc", reason="CuPy is not installed here, and with it NVRTC"
)

KERNELS = Path(__file__).parents[2] / "kernels"
ALL = ("90a", "75", "80", "86", "89", "100", "120")
BINARY_MMA = ("90a", "80", "86", "89")  # where binary tensor cores are more than an emulation

Variant = tuple[str, ...]  # -D options without their -D


@dataclass(frozen=True)
class Claim:
    """What a kernel promises of its compiled form."""

    architectures: tuple[str, ...] = ALL
    variants: tuple[Variant, ...] = ((),)
    instruction: str = ""  # of a tensor core, that the machine code must hold
    may_spill: bool = False


OUTS = tuple((f"OUT={out}",) for out in ("BITS", "INT32", "INT16", "FLOAT32"))

MOST_BITS = ("INPUT_BITS=4", "WEIGHT_BITS=4", "OUTPUT_BITS=4")

# What is to be tested of each kernel.
CLAIMS = {
    "xnor_gemm": Claim(variants=OUTS),
    "xnor_gemm_mma": Claim(BINARY_MMA, OUTS, "BMMA.168256.AND.POPC"),
    "xnor_gemm_wgmma": Claim(("90a",), OUTS, "BGMMA.64x256x256.AND.POPC"),
    "pack_bits": Claim(
        variants=tuple(
            (f"IN={kind}", *way)
            for kind in ("FLOAT32", "INT32", "UINT8")
            for way in ((), ("TRANSPOSED",))
        )
    ),
    "baseline_gemm": Claim(),
    "xnor_conv": Claim(
        variants=(
            ("CW=4",),
            ("CW=4", "POOL"),
            ("CW=16",),
            ("CW=16", "POOL"),
            ("CW=4", *MOST_BITS),
            ("CW=4", "POOL", *MOST_BITS),
        )
    ),
    "first_layer": Claim(
        variants=tuple(
            (*layer, *way)
            for layer in ((), ("CHANNELS=3",), ("CHANNELS=3", "POOL"))
            for way in ((), ("PLANES",), ("OUTPUT_BITS=4",), ("PLANES", *MOST_BITS[1:]))
        )
    ),
    "code_planes": Claim(variants=(("INPUT_BITS=1", "WEIGHT_BITS=1", "OUTPUT_BITS=2"), MOST_BITS)),
    "adam": Claim(variants=((), ("CLIP",), ("SIGNS",), ("CLIP", "SIGNS"))),
    "norm_sign": Claim(
        variants=tuple(
            (f"PASS={name}",)
            for name in ("MOMENTS", "LINE", "SIGN", "GRADIENT_SUMS", "FACTORS", "GRADIENT")
        )
    ),
}


@dataclass(frozen=True)
class Build:
    kernel: str
    architecture: str
    variant: Variant

    def __str__(self) -> str:
        return "-".join((self.kernel, f"sm_{self.architecture}", *self.variant))


@dataclass(frozen=True)
class Compiled:
    cubin: bytes
    log: str  # NVRTC's, and ptxas' -v


BUILDS = [
    Build(kernel, architecture, variant)
    for kernel, claim in CLAIMS.items()
    for architecture in claim.architectures
    for variant in claim.variants
]


def compile_build(build: Build) -> Compiled:
    """Machine code of one build.

    Raises:
        RuntimeError: the compiler's messages
    """
    text = (KERNELS / f"{build.kernel}.cu").read_text()
    options = (f"-arch=sm_{build.architecture}", "-std=c++17", "--ptxas-options=-v")
    defines = tuple(f"-D{define}" for define in build.variant)
    program = nvrtc.createProgram(text, f"{build.kernel}.cu", (), ())
    try:
        nvrtc.compileProgram(program, (*options, *defines))
        # CuPy takes the last byte for the end of a text.
        return Compiled(nvrtc.getCUBIN(program) + b"\0", nvrtc.getProgramLog(program).strip("\0"))
    except nvrtc.NVRTCError as error:
        raise RuntimeError(f"{build}: {error}\n{nvrtc.getProgramLog(program)}") from None
    finally:
        nvrtc.destroyProgram(program)


@pytest.fixture(scope="session")
def builds(request):
    """What all builds that this session's tests ask for come to, made two at a time."""
    try:
        known = nvrtc.getSupportedArchs()
    except RuntimeError as error:
        pytest.skip(f"NVRTC cannot be used here: {error}")
    params = (item.callspec.params for item in request.session.items if hasattr(item, "callspec"))
    wanted = {p["build"]: None for p in params if isinstance(p.get("build"), Build)}
    # New processes, not copies of this one: this one has threads.
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        yield {
            build: pool.submit(compile_build, build)
            for build in wanted
            if int(build.architecture.rstrip("a")) in known
        }
        pool.shutdown(cancel_futures=True)


@pytest.fixture
def compiled(build, builds):
    if build not in builds:
        pytest.skip(f"NVRTC {nvrtc.getVersion()} does not know sm_{build.architecture}")
    return builds[build].result()


@pytest.fixture
def disassemble(tmp_path):
    """Machine code as text, by the tool that comes with Triton."""
    triton = importlib.util.find_spec("triton")
    places = triton.submodule_search_locations if triton else None
    tool = Path(places[0], "backends/nvidia/bin/nvdisasm") if places else None
    if tool is None or not tool.exists():
        pytest.skip("nvdisasm, which comes with Triton, is not here")

    def run(cubin: bytes) -> str:
        file = tmp_path / "kernel.cubin"
        file.write_bytes(cubin)
        command = [tool, "-c", file]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    return run


def test_every_kernel_has_a_claim():
    assert set(CLAIMS) == {path.stem for path in KERNELS.glob("*.cu")}


@pytest.mark.parametrize("build", BUILDS, ids=str)
def test_compiles_without_warnings_or_spilled_registers(build, compiled):
    log = compiled.log
    assert f"'{build.kernel}'" in log
    assert "warning" not in log
    if not CLAIMS[build.kernel].may_spill:
        spills = re.findall(r"(\d+) bytes spill (?:stores|loads)", log)
        assert len(spills) >= 2 and set(spills) == {"0"}, log


@pytest.mark.parametrize("build", [b for b in BUILDS if CLAIMS[b.kernel].instruction], ids=str)
def test_tensor_cores_are_used_as_they_are(build, compiled, disassemble):
    code = disassemble(compiled.cubin)
    assert CLAIMS[build.kernel].instruction in code
    # What a device cannot do itself, the compiler does by calling a function.
    assert "CALL" not in code
