"""Products as other processors compute them: each algorithm that this one would not choose."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bnnrun.gemm.instructions import FEATURES, HAS_POPCOUNT

TESTS = Path(__file__).parents[1]
FILES = ["gemm/test_gemm.py", "runtime/test_runtime.py", "engine/test_cpu_products.py"]
NAMES = "product_is or products_of or bits_are or any_length or five or 13x11 or masked"
ONE_BIT = f"({NAMES}) and not of_more_bits"  # a third of the kernels less to compile
# Numba chooses its features, and the package its algorithms, when they are imported.
PROGRAM = """
import sys
import bnnrun.gemm.instructions as instructions
instructions.HAS_POPCOUNT = sys.argv[1] == "popcount"
import pytest
sys.exit(pytest.main(["-q", "-x", "-p", "no:xdist", "-p", "no:cacheprovider", *sys.argv[2:]]))
"""


@pytest.mark.parametrize(
    ("count", "vectors", "names"),
    [
        pytest.param("popcount", "all", NAMES, marks=pytest.mark.exhaustive),
        pytest.param("adders", "all", NAMES, marks=pytest.mark.exhaustive),
        pytest.param("adders", "AVX2", NAMES, marks=pytest.mark.exhaustive),
        ("adders", "AVX2", ONE_BIT),
    ],
)
def test_products_by_other_algorithms_are_the_same(tmp_path, count, vectors, names):
    """A vector popcount that the processor lacks is made of what it has, and so can be tried."""
    wide = vectors == "all" or not any(name.startswith("avx512") for name in FEATURES)
    if wide and (vectors != "all" or (count == "popcount") == HAS_POPCOUNT):
        pytest.skip("this is what the other tests try")
    variables = {"NUMBA_CACHE_DIR": str(tmp_path / "kernels")}
    if vectors == "AVX2":
        kept = sorted(f"+{name}" for name in FEATURES if not name.startswith("avx512"))
        variables["NUMBA_CPU_FEATURES"] = ",".join(kept)
    words = [*(str(TESTS / file) for file in FILES), "-k", names, "--rootdir", str(TESTS.parent)]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, count, *words, f"--basetemp={tmp_path / 'tests'}"],
        check=False,
        cwd=TESTS.parent,
        env={**os.environ, **variables},
        capture_output=True,
        encoding="utf-8",
        timeout=200,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert " passed" in done.stdout
