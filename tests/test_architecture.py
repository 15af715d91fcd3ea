"""The house's one direction, and what its halves may import."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "bnnrun"

# A module imports only from its own line and the lines above it.
ORDER = [
    ["errors", "files", "lock", "machine", "paper", "roles", "worker"],
    ["settings"],
    ["config"],
    ["upgrade"],
    ["table", "records"],
    ["gemm"],
    ["data"],
    ["architecture"],
    ["runtime"],
    ["nn"],
    ["engine"],
    ["train"],
    ["pack"],
    ["export"],
    ["bench"],
    ["report"],
    ["precompile", "doctor"],
    ["cli", "__main__"],
]
RANK = {name: i for i, line in enumerate(ORDER) for name in line}
MODULES = sorted(p.relative_to(PACKAGE) for p in PACKAGE.rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Full names of the modules and names that a file imports, at any depth."""
    names = set()
    for node in ast.walk(ast.parse((PACKAGE / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def part(path: Path) -> str:
    return path.parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_imports_go_one_way(path):
    if str(path) == "__init__.py":
        return
    own = RANK[part(path)]
    for name in imported(path):
        if name.startswith("bnnrun."):
            used = name.split(".")[1]
            if used in RANK:
                assert RANK[used] <= own, f"{path} imports {name}, which comes after it"


def test_every_part_of_the_package_has_its_place_in_the_order():
    parts = {part(path) for path in MODULES} - {"__init__"}
    assert parts == set(RANK)


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_only_the_command_line_knows_hydra(path):
    if part(path) != "cli":
        assert not {n for n in imported(path) if n.split(".")[0] in ("hydra", "omegaconf")}


@pytest.mark.parametrize("path", [p for p in MODULES if part(p) == "nn"], ids=str)
def test_the_paper_is_plain_pytorch(path):
    """nn/ imports torch, NumPy, the standard library, and of ours what holds no computation."""
    ours = {name.split(".")[1] for name in imported(path) if name.startswith("bnnrun.")}
    assert ours <= {"architecture", "config", "data", "errors", "nn"}
    others = {name.split(".")[0] for name in imported(path)} - {"bnnrun", "torch", "numpy"}
    assert others <= sys.stdlib_module_names


def test_one_function_chooses_an_engine():
    """Who else names an engine of a device makes tests or benchmarks of it."""
    engines = (".CpuEngine", ".CudaEngine")
    for path in MODULES:
        if part(path) != "engine":
            assert not any(name.endswith(engines) for name in imported(path)), path


def test_one_module_knows_cupy():
    knows = {str(path) for path in MODULES
             if any(name.split(".")[0].startswith("cupy") for name in imported(path))}  # fmt: skip
    assert knows == {"gemm/cuda_device.py"}


@pytest.mark.parametrize(
    "module",
    [
        "bnnrun",
        "bnnrun.data",
        "bnnrun.architecture",
        "bnnrun.records",
        "bnnrun.gemm.xnor",
        "bnnrun.runtime.network",
        "bnnrun.runtime.predict",
        "bnnrun.pack.evaluate",
    ],
)
def test_the_running_half_never_imports_torch_or_cupy(module):
    code = f"import sys, {module}; print({{'torch', 'cupy'}} & set(sys.modules))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "set()"
