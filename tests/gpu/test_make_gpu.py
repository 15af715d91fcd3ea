"""`make gpu` where there is no GPU: its commands by kernels on the processor, its tests, a tool."""

import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import sanitize
import test_gpu
from bench_runs import emulate
from emulated_device import EmulatedDevice

from bnnrun.bench import train_step
from bnnrun.bench.step_process import step_process
from bnnrun.config import Device, FirstLayer
from bnnrun.gemm import cuda_device
from bnnrun.gemm.cuda import VARIANTS, Xnor
from bnnrun.train import loop

HOPPER = (9, 0)
ROOT = Path(__file__).parents[2]
# Little of everything.
LITTLE = ("SIZES=24 33", "SECONDS=0.01", "WIDTH=40", "MLP=batch=3 arch.width=40",
          "CONVNET=batch=1 arch.channels=[8,8] arch.fc=[16]")  # fmt: skip


def recipe(*variables):
    """What `make gpu` would run, a list of words for each line."""
    if shutil.which("make") is None:
        pytest.skip("no make here")
    command = [
        "make",
        "--dry-run",
        "--no-print-directory",
        "-C",
        ROOT,
        "gpu",
        "BIN=bin",
        *variables,
    ]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [shlex.split(line) for line in shown.replace("\\\n", " ").splitlines()]


def process_without_gpu(job):
    """A training step's own process, where nothing of this one is patched."""
    return step_process(replace(job, config=replace(job.config, device=Device.cpu)))


@pytest.mark.timeout(600)  # g++ compiles some thirty variants of kernels
def test_every_command_of_make_gpu_does_its_work(bnnrun, tmp_path, monkeypatch):
    """In its order, with device=cuda, the kernels on the processor and PyTorch there too."""
    emulate(monkeypatch, HOPPER)
    select = loop.torch_device
    monkeypatch.setattr(loop, "torch_device", lambda device, threads: select(type(device).cpu, 1))
    monkeypatch.setattr(train_step, "step_process", process_without_gpu)
    commands = [words[1:] for words in recipe(*LITTLE) if words[0] == "bin/bnnrun"]
    assert sum("device=cuda" in words for words in commands) == 7
    for words in commands:
        outcome = bnnrun(*words)
        assert outcome.status == 0, (words, outcome.err)
    results = tmp_path / "outputs/gpu/results"
    assert len(list(results.rglob("*.json"))) > 50


def test_what_make_gpu_runs_besides_is_there():
    """And a variable of its that no command takes is none."""
    others = [words for words in recipe(*LITTLE) if words[0] != "bin/bnnrun"]
    scripts = [words[1] for words in others if words[0] == "bin/python" and words[1] != "-m"]
    assert scripts == ["tests/helpers/sanitize.py"]
    assert (ROOT / scripts[0]).is_file()
    assert ["tar", "-czf", "outputs/gpu.tar.gz", "-C", "outputs/gpu", "."] in others
    usual, cpu = (recipe(*more) for more in ((), ("DEVICE=cpu",)))
    assert [[word.replace("=cuda", "=cpu") for word in words] for words in usual] == cpu


@pytest.mark.parametrize(
    "kernel",
    [
        pytest.param(name, marks=() if name == "xnor_gemm_wgmma" else pytest.mark.exhaustive)
        for name in VARIANTS
    ],
)
def test_the_tests_for_a_gpu_pass_on_kernels_that_are_right(kernel, tmp_path, monkeypatch):
    device = EmulatedDevice(HOPPER)
    xnor = Xnor(device, kernel)
    for shape in ((1, 1, 1), (5, 33, 129)):
        test_gpu.test_products_of_any_shape(xnor, device, shape)
    test_gpu.test_watched_packing(device, None)
    test_gpu.test_the_baseline_is_the_float_product(device)
    test_gpu.test_networks_are_the_definition(device, "five inputs", kernel, FirstLayer.bytes)
    if kernel == "xnor_gemm_wgmma":
        test_gpu.test_watched_networks(device, None)
        test_gpu.test_the_fastest_kernel_passes_its_trial(device, tmp_path, monkeypatch)


def fake(folder, text):
    """A compute-sanitizer that does what a shell script says."""
    program = folder / "compute-sanitizer"
    program.write_text(f"#!/bin/sh\n{text}\n")
    program.chmod(0o755)
    return program


@pytest.mark.skipif(sys.platform == "win32", reason="the fake program is a shell script")
@pytest.mark.parametrize(
    ("text", "status", "outcome"),
    [
        ('echo "$@"', 0, "clean"),
        ("exit 9", 1, "found something"),
        ("exit 3", 1, "failed with status 3"),
        ("sleep 60", 1, "not done after 0.2 s"),
    ],
)
def test_what_a_sanitizer_finds_is_told(tmp_path, monkeypatch, capsys, *, text, status, outcome):
    monkeypatch.setattr(cuda_device, "missing", lambda: None)
    monkeypatch.setattr(sanitize, "LONGEST_S", 0.2 if text.startswith("sleep") else 60)
    program = fake(tmp_path, text)
    monkeypatch.setattr(sanitize, "program", lambda: program)
    assert sanitize.main(tmp_path / "logs") == status
    assert capsys.readouterr().out == "".join(
        f"compute-sanitizer, {tool}: {outcome}; {tmp_path}/logs/{tool}.log\n"
        for tool in ("memcheck", "racecheck")
    )
    if status == 0:
        words = (tmp_path / "logs/memcheck.log").read_text().split()
        assert words[:2] == ["--tool", "memcheck"]
        assert words[-3:] == ["-k", "test_watched", str(ROOT / "tests/gpu/test_gpu.py")]


@pytest.mark.parametrize("why", [None, "no GPU: no driver"])
def test_without_a_gpu_or_the_program_one_line_says_so(tmp_path, monkeypatch, capsys, why):
    monkeypatch.setattr(cuda_device, "missing", lambda: why)
    monkeypatch.setattr(sanitize, "program", lambda: None)
    assert sanitize.main(tmp_path / "logs") == 0
    out = capsys.readouterr().out
    assert out.startswith(f"compute-sanitizer: not run, {why or 'not on PATH'}")
    assert out.count("\n") == 1
    assert not (tmp_path / "logs").exists()


def test_the_program_is_found_on_path_or_in_its_package(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    package = tmp_path / "nvidia/cu13/bin"
    package.mkdir(parents=True)
    monkeypatch.setattr(sanitize.importlib.util, "find_spec", lambda name: None)
    assert sanitize.program() is None
    spec = type("Spec", (), {"submodule_search_locations": [str(tmp_path / "nvidia")]})
    monkeypatch.setattr(sanitize.importlib.util, "find_spec", lambda name: spec)
    assert sanitize.program() is None
    assert sanitize.program() != fake(package, "")
    assert sanitize.program() == package / "compute-sanitizer"
    on_path = fake(tmp_path, "")
    assert sanitize.program() == on_path
