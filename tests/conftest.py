"""What the whole test suite shares: the command line, and which tests wait for a GPU or data."""

import os

import pytest
from command import Command


@pytest.fixture
def bnnrun(capsys, monkeypatch, tmp_path):
    """The command line, run in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.delenv("BNNRUN_DATA", raising=False)
    return Command(capsys)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what this machine cannot run, with the reason."""
    reasons = {"gpu": _no_gpu, "realdata": _no_data}
    for marker, why in reasons.items():
        marked = [item for item in items if item.get_closest_marker(marker)]
        if marked and (reason := why()):
            for item in marked:
                item.add_marker(pytest.mark.skip(reason=reason))


def _no_gpu() -> str:
    import torch

    return "" if torch.cuda.is_available() else "PyTorch sees no CUDA device here"


def _no_data() -> str:
    if os.environ.get("BNNRUN_DATA"):
        return ""
    return "BNNRUN_DATA is not set: name the folder of the real data sets to run this"
