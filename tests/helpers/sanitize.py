"""The kernels on a GPU under NVIDIA's compute-sanitizer: `python tests/sanitize.py FOLDER`.

Runs the tests whose names begin with test_watched once for each tool, a log of each in FOLDER. The
status is 1 where a tool found something. Without a GPU or the program a line says so, and nothing
is run.
"""

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

from bnnrun.gemm import cuda_device

# Of accesses out of bounds or misaligned; of threads that meet in shared memory unordered.
TOOLS = ("memcheck", "racecheck")
LONGEST_S = 90
FOUND = 9  # status of the program where it found something
TESTS = Path(__file__).parents[1] / "gpu" / "test_gpu.py"


def program() -> Path | None:
    """On PATH, or where `pip install nvidia-cuda-sanitizer-api` puts it."""
    if program := shutil.which("compute-sanitizer"):
        return Path(program)
    package = importlib.util.find_spec("nvidia")
    for place in (package.submodule_search_locations or ()) if package else ():
        for path in Path(place).glob("cu*/bin/compute-sanitizer"):
            return path
    return None


def run(tool: str, command: Path, folder: Path) -> str:
    """What came of a tool, in a word."""
    words = [command, "--tool", tool, "--error-exitcode", str(FOUND), "--report-api-errors", "no",
             sys.executable, "-m", "pytest", "-m", "gpu", "-k", "test_watched", TESTS]  # fmt: skip
    with (folder / f"{tool}.log").open("wb") as log:
        try:
            done = subprocess.run(
                words, stdout=log, stderr=subprocess.STDOUT, timeout=LONGEST_S, check=False
            )
        except subprocess.TimeoutExpired:
            return f"not done after {LONGEST_S} s"
    clean = {0: "clean", FOUND: "found something"}
    return clean.get(done.returncode, f"failed with status {done.returncode}")


def main(folder: Path) -> int:
    if (why := cuda_device.missing()) is not None:
        print(f"compute-sanitizer: not run, {why}")
        return 0
    if (command := program()) is None:
        print("compute-sanitizer: not run, not on PATH; pip install nvidia-cuda-sanitizer-api")
        return 0
    folder.mkdir(parents=True, exist_ok=True)
    outcomes = {tool: run(tool, command, folder) for tool in TOOLS}
    for tool, outcome in outcomes.items():
        print(f"compute-sanitizer, {tool}: {outcome}; {folder / tool}.log")
    return int(set(outcomes.values()) != {"clean"})


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
