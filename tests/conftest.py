"""What the whole test suite shares: the command line, and which tests wait for a GPU or data."""

import contextlib
import os
import shutil
import tempfile

import emulated
import pytest
from command import Command
from digit_runs import PACKED, RUNS
from packed_files import CONVNET, MLP, random_model

from bnnrun.cli.main import run
from bnnrun.cli.reporting import experiments
from bnnrun.gemm.compiled import Call, Kernel
from bnnrun.runtime import file


def pytest_configure(config: pytest.Config) -> None:
    """Name a folder that the processes of a session share, before it starts them."""
    if not hasattr(config, "workerinput") and emulated.SHARED not in os.environ:
        folder = tempfile.TemporaryDirectory(prefix="bnnrun-programs-", ignore_cleanup_errors=True)
        config.add_cleanup(folder.cleanup)
        os.environ[emulated.SHARED] = folder.name


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--exhaustive", action="store_true",
                     help="run what is marked so: more cases of what other tests try")  # fmt: skip


@pytest.fixture
def bnnrun(capsys, monkeypatch, tmp_path):
    """The command line, run in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.delenv("BNNRUN_DATA", raising=False)
    return Command(capsys)


@pytest.fixture
def made_calls(monkeypatch):
    """A function: the set of the kernels' calls that running something makes."""
    call = Kernel.__call__

    def made(run, *args):
        calls = set()

        def recording(kernel, *values):
            calls.add(Call(kernel, tuple(map(kernel.dispatcher.typeof_pyval, values))))
            return call(kernel, *values)

        with monkeypatch.context() as patch:
            patch.setattr(Kernel, "__call__", recording)
            run(*args)
        return calls

    return made


@pytest.fixture(scope="session")
def of_conf():
    """The experiments of conf/, as the report sees them."""
    return experiments()


@pytest.fixture
def saved(tmp_path):
    """A small packed file of an MLP."""
    path = tmp_path / "model.safetensors"
    file.save(random_model(*MLP), path)
    return path


@pytest.fixture
def saved_convnet(tmp_path):
    path = tmp_path / "convnet.safetensors"
    file.save(random_model(*CONVNET), path)
    return path


@pytest.fixture
def saved_bits(tmp_path):
    """A packed file of an MLP with weights and activations of two bits."""
    path = tmp_path / "bits.safetensors"
    file.save(random_model(*MLP, bits=(2, 2)), path)
    return path


@pytest.fixture(scope="session")
def runs_dir(tmp_path_factory):
    """Short runs on digits, and the packed networks of the binary ones."""
    root = tmp_path_factory.mktemp("runs")
    with contextlib.chdir(root):
        for name, words in RUNS.items():
            common = ["dataset=digits", "threads=1", f"hydra.run.dir={name}"]
            assert run(["train", *common, *words]) == 0
        for name in PACKED:
            assert run(["pack", f"run={name}"]) == 0
    return root


@pytest.fixture
def here(bnnrun, runs_dir, tmp_path):
    """The command line in a folder of copies of those runs."""
    for name in RUNS:
        shutil.copytree(runs_dir / name, tmp_path / name)
    return bnnrun


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip what this machine cannot run, with the reason."""
    reasons = {"gpu": _no_gpu, "realdata": _no_data, "exhaustive": lambda: _not_asked(config)}
    for marker, why in reasons.items():
        marked = [item for item in items if item.get_closest_marker(marker)]
        if marked and (reason := why()):
            for item in marked:
                item.add_marker(pytest.mark.skip(reason=reason))


def _not_asked(config: pytest.Config) -> str:
    return "" if config.getoption("exhaustive") else "more cases of the same: `make exhaustive`"


def _no_gpu() -> str:
    import torch

    return "" if torch.cuda.is_available() else "PyTorch sees no CUDA device here"


def _no_data() -> str:
    if os.environ.get("BNNRUN_DATA"):
        return ""
    return "BNNRUN_DATA is not set: name the folder of the real data sets to run this"
