"""Kernels where nothing can be written, where what was kept is damaged, after a change."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bnnrun import files, precompile
from bnnrun.files import private_folder
from bnnrun.gemm import kernel_cache
from bnnrun.gemm.compiled import Kernel, compilation, prange, stopwatch
from bnnrun.gemm.kernel_cache import open_cache

SOURCE = """
from bnnrun.gemm.compiled import kernel, prange
from {helper} import more

@kernel()
def double(a, out):
    for i in prange(a.size):
        out[i] = more(a[i])
"""
HELPER = """
from bnnrun.gemm.compiled import njit

@njit
def more(x):
    return {factor} * x
"""


def doubled(kernel):
    a, out = np.arange(10.0), np.empty(10)
    kernel(a, out)
    return out


def fresh(path, name):
    """The kernel of a module file, read as a new process would."""
    import importlib.util

    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.double


@pytest.fixture
def sources(tmp_path, monkeypatch):
    """A folder of its own for a kernel and the function that it is made of."""

    def write(factor):
        (tmp_path / "kernel_helper.py").write_text(HELPER.format(factor=factor), encoding="utf-8")
        (tmp_path / "a_kernel.py").write_text(
            SOURCE.format(helper="kernel_helper"), encoding="utf-8"
        )
        sys.modules.pop("kernel_helper", None)
        kernel_cache._digest.cache_clear()
        return fresh(tmp_path / "a_kernel.py", "a_kernel")

    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield write
    kernel_cache._digest.cache_clear()


def kept(folder):
    return sorted((folder / "__pycache__").glob("a_kernel*.nb?"))


def loaded(kernel):
    """Whether its answer came from what was kept."""
    before = sum(kernel._run.stats.cache_hits.values()) if kernel._run else 0
    answer = doubled(kernel)
    return answer[3] / 3, sum(kernel._run.stats.cache_hits.values()) > before


def test_a_kernel_is_kept_and_taken_from_there(sources, tmp_path):
    assert loaded(sources(2)) == (2.0, False)
    assert kept(tmp_path)
    assert loaded(sources(2)) == (2.0, True)


def test_a_change_in_a_file_that_a_kernel_is_made_of_compiles_it_anew(sources):
    assert loaded(sources(2)) == (2.0, False)
    assert loaded(sources(3)) == (3.0, False)
    assert loaded(sources(3)) == (3.0, True)


@pytest.mark.parametrize("suffix", ["nbi", "nbc"])
@pytest.mark.parametrize("content", [b"", b"\x80\x04half", "half"])
def test_what_was_kept_and_is_damaged_is_made_anew(sources, tmp_path, suffix, content):
    assert loaded(sources(2)) == (2.0, False)
    for path in kept(tmp_path):
        if path.suffix == f".{suffix}":
            whole = path.read_bytes()
            path.write_bytes(whole[: len(whole) // 2] if content == "half" else content)
    assert loaded(sources(2)) == (2.0, False)
    assert loaded(sources(2)) == (2.0, True)


def test_with_and_without_threads_are_two_kernels(sources):
    kernel = sources(2)
    for _ in range(2):
        for parallel in (True, False):
            run = kernel.compiled(parallel=parallel)
            assert doubled(run)[3] == 6
    for parallel in (True, False):
        run = kernel.compiled(parallel=parallel)
        doubled(run)
        assert sum(run.stats.cache_hits.values()) == 1
        assert run.targetoptions["parallel"] is parallel


def test_a_full_disk_costs_no_kernel(sources, monkeypatch):
    kernel = sources(2)

    def full(*given):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(kernel_cache.IndexDataCacheFile, "_save_index", full)
    assert loaded(kernel) == (2.0, False)


def nowhere(monkeypatch, but=None):
    """No folder can be written to, but those below `but`."""
    from numba.core import caching

    def refuse(self):
        if but is None or but not in Path(self.get_cache_path()).parents:
            raise PermissionError(13, "Permission denied")
        Path(self.get_cache_path()).mkdir(parents=True, exist_ok=True)

    monkeypatch.setattr(caching._CacheLocator, "ensure_cache_path", refuse)


def test_where_nobody_may_write_kernels_go_to_the_temporary_folder(sources, tmp_path, monkeypatch):
    monkeypatch.setattr(files.tempfile, "gettempdir", lambda: str(tmp_path / "t"))
    (tmp_path / "t").mkdir()
    nowhere(monkeypatch, but=tmp_path / "t")
    assert loaded(sources(2)) == (2.0, False)
    folder = private_folder()
    assert folder.parent == tmp_path / "t" and list(folder.rglob("a_kernel*.nbi"))
    assert loaded(sources(2)) == (2.0, True)


def test_where_there_is_no_temporary_folder_either_there_is_no_cache(sources, monkeypatch):
    nowhere(monkeypatch)
    kernel = sources(2)
    assert open_cache(kernel.function, {}) is None
    assert doubled(kernel)[3] == 6
    assert doubled(kernel.compiled(parallel=False))[3] == 6


@pytest.mark.skipif(os.name != "posix", reason="owners and modes of a POSIX system")
@pytest.mark.parametrize("how", ["open to others", "a link", "a file"])
def test_a_temporary_folder_that_others_could_fill_is_not_used(tmp_path, monkeypatch, how):
    """What lies there is loaded and run."""
    monkeypatch.setattr(files.tempfile, "gettempdir", lambda: str(tmp_path))
    place = private_folder()
    assert place is not None
    place.rmdir()
    if how == "open to others":
        place.mkdir()
        place.chmod(0o777)
    elif how == "a link":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        place.symlink_to(tmp_path / "elsewhere")
    else:
        place.write_text("")
    assert private_folder() is None


def test_a_folder_of_the_users_that_cannot_be_written_is_passed_over(tmp_path):
    """NUMBA_CACHE_DIR below a file: nobody can make it, not even root."""
    (tmp_path / "file").write_text("")
    done = subprocess.run(
        [sys.executable, "-m", "bnnrun", "doctor"],
        env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "file" / "cache")},
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    assert "compiled kernels" in done.stdout and "kept in" in done.stdout


def test_the_doctor_tells_where_nothing_can_be_kept(bnnrun, monkeypatch):
    nowhere(monkeypatch)
    out = " ".join(bnnrun("doctor").out.split())
    assert "compiled kernels absent no folder can be written to" in out
    assert "NUMBA_CACHE_DIR" in out


def test_the_doctor_tells_of_a_variable_that_stops_numba():
    done = subprocess.run(
        [sys.executable, "-m", "bnnrun", "doctor"],
        env={**os.environ, "NUMBA_DISABLE_JIT": "1"},
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    assert "broken" in done.stdout and "NUMBA_DISABLE_JIT=1" in done.stdout


def test_compiling_is_logged_and_stops_the_watch(caplog):
    def triple(a, out):
        for i in prange(a.size):
            out[i] = 3 * a[i]

    triple.__module__ = "bnnrun.made_up"
    kernel = Kernel(triple, {})
    caplog.set_level("INFO", "bnnrun.kernels")
    count, before, watch = compilation.count, compilation.time_s, stopwatch()
    assert doubled(kernel)[3] == 9
    assert compilation.count == count + 1
    taken = compilation.time_s - before
    assert taken > 0.05
    assert watch() < taken / 2
    told = [record.getMessage() for record in caplog.records]
    assert told[0] == "compiling triple" and told[1].startswith("compiled triple in ")
    doubled(kernel)
    assert len(caplog.records) == 2 == len(told)


@pytest.mark.parametrize("place", ["below a file", "not writable"])
def test_cupy_is_imported_where_its_folder_cannot_be_written(tmp_path, place):
    """Its import fails there, and with it doctor and predict."""
    pytest.importorskip("cupy")
    (tmp_path / "file").write_text("")
    folder = tmp_path / "file" / "cache" if place == "below a file" else tmp_path / "kept"
    code = (
        "import os, sys\n"
        "from bnnrun.gemm import cuda_device\n"
        "refused, access = sys.argv[1], os.access\n"
        "os.access = lambda path, mode: str(path) != refused and access(path, mode)\n"
        "print(cuda_device.import_cupy().__name__, os.environ['CUPY_CACHE_DIR'] != refused)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, folder],
        env={**os.environ, "CUPY_CACHE_DIR": str(folder)},
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    assert done.stdout.split() == ["cupy", "True"]


def test_the_doctor_compiles_by_running_networks(bnnrun, monkeypatch):
    monkeypatch.setattr(precompile, "PACKED", ())
    monkeypatch.setattr(precompile, "TRAINED", (("binarization=none",),))
    out = " ".join(bnnrun("doctor", "compile=true").out.split())
    assert re.search(r"compiled kernels ok kept in .+; compiled in \d+ s", out)


def test_the_doctor_names_the_command_that_failed(bnnrun, monkeypatch):
    monkeypatch.setattr(precompile, "PACKED", (("arch.depth=-1",),))
    monkeypatch.setattr(precompile, "TRAINED", ())
    outcome = bnnrun("doctor", "compile=true")
    assert outcome.status == 1
    assert "compile=true: `bnnrun train" in outcome.err and "arch.depth" in outcome.err


def test_the_doctor_compiles_nothing_that_cannot_be_kept(bnnrun, monkeypatch):
    nowhere(monkeypatch)
    outcome = bnnrun("doctor", "compile=true")
    assert outcome.status == 2
    assert "compile=true: no folder can be written to" in outcome.err
