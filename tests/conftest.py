import pytest
from command import Command


@pytest.fixture
def bnnrun(capsys, monkeypatch, tmp_path):
    """The command line, run in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.delenv("BNNRUN_DATA", raising=False)
    return Command(capsys)
