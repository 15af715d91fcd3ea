"""Disk full, memory short, names that are not UTF-8: a line that says so, and nothing lost."""

import errno
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from command import configure

from bnnrun import machine, records
from bnnrun.cli.job import explain
from bnnrun.data import load
from bnnrun.errors import InputError
from bnnrun.files import reason_of
from bnnrun.records import Record
from bnnrun.train.memory import check_memory

SAVE = """
import resource, signal, sys
from pathlib import Path
import torch
from bnnrun.errors import RunError
from bnnrun.train import checkpoint

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
try:
    checkpoint.save(Path(sys.argv[1]), "network", {"weights": torch.zeros(100_000)})
except RunError as error:
    print(error)
"""


@pytest.mark.parametrize("free_bytes", [0, 100, 300_000])
def test_what_the_system_says_is_told_and_not_what_a_library_makes_of_it(tmp_path, free_bytes):
    """A limit on the size of files stands for the full disk; torch says "unexpected pos"."""
    pytest.importorskip("resource")
    path = tmp_path / "x.pt"
    path.write_bytes(b"before")
    done = subprocess.run(
        [sys.executable, "-c", SAVE, path, str(free_bytes)],
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    assert done.stdout == f"{path}: cannot be written (File too large); what stood there is kept\n"
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_in_a_persons_words(tmp_path):
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert reason_of(full, tmp_path) == f"no space left on the disk of {tmp_path}"
    assert explain(full) == ("a file: no space left on its disk", 1)
    named = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "x.log")
    assert explain(named) == ("x.log: no space left on its disk", 1)


def unable(how):
    """What a library raises where an array cannot be had."""
    try:
        if how == "numpy":
            np.ones((1 << 20, 1 << 24))
        elif how == "torch":
            torch.ones(1 << 20, 1 << 24)
        else:
            raise MemoryError
    except Exception as error:
        return error
    raise AssertionError(how)


@pytest.mark.parametrize("how", ["numpy", "torch", "python"])
def test_short_memory_in_a_persons_words(how):
    line, status = explain(unable(how))
    assert status == 1
    assert line.startswith("not enough memory (") and "trainer.eval_batch_size" in line
    assert "Traceback" not in line and "\n" not in line


GIB = 2**30


@pytest.mark.parametrize(
    ("words", "free", "message"),
    [
        (["arch.width=4096"], GIB // 4, r"arch=mlp of .* weights: needs about 0 GiB of memory"),
        (
            ["arch.width=64", "trainer.batch_size=1000"],
            2**19,
            r"trainer\.batch_size=1000: .*; lower",
        ),
        (
            ["arch.width=64", "trainer.eval_batch_size=10000"],
            2**17 + 2**16,
            "eval_batch_size=10000",
        ),
        (["arch=convnet", "arch.channels=[64,64]", "arch.fc=[64]"], 2**21, "trainer.batch_size=50"),
    ],
)
def test_what_cannot_fit_is_refused_before_it_is_made(monkeypatch, words, free, message):
    config = configure("train", "dataset=digits", *words)
    dataset = load(config.dataset)
    check_memory(config, dataset)
    monkeypatch.setattr("bnnrun.train.memory.free_memory_bytes", lambda: free)
    with pytest.raises(InputError, match=message):
        check_memory(config, dataset)


def test_free_memory_is_less_than_the_machine_has():
    assert 0 < machine.free_memory_bytes() < machine.cpu()["memory_bytes"]


def test_a_record_takes_names_that_are_not_utf_8(tmp_path):
    name = os.fsdecode(b"caf\xe9")
    record = Record(
        experiment="", cell="", quantity="test_error", value=1.0, unit="%", seed=0, device="cpu",
        details={"run_folder": name, "list": [name], name: 1}, config={"dataset": {"name": name}},
        command=f"bnnrun train dataset.path={name}",
    )  # fmt: skip
    path = records.write(record, tmp_path)
    again = records.read(path)
    assert again == record and again.details["run_folder"] == r"caf\udce9"


@pytest.mark.skipif(sys.platform != "linux", reason="names that are no text, as Linux has them")
@pytest.mark.parametrize("where", ["word", "folder"])
def test_a_run_of_a_name_that_is_not_utf_8_is_refused_before_any_work(bnnrun, tmp_path, where):
    name = os.fsdecode(b"caf\xe9")
    words = ["train", "dataset=digits", "trainer.epochs=1"]
    if where == "folder":
        (tmp_path / name).mkdir()
        os.chdir(tmp_path / name)
    else:
        words.append(f"hydra.run.dir={name}")
    outcome = bnnrun(*words)
    assert outcome.status == 2
    assert r"caf\udce9" in outcome.err and "not UTF-8; rename it" in outcome.err
    assert not (tmp_path / "outputs").exists() and not (tmp_path / name / "outputs").exists()
