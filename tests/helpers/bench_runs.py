"""Short runs of `bench`, and what they leave."""

import json

import torch
from emulated_device import EmulatedDevice

from bnnrun.bench import gemm_cuda, workloads
from bnnrun.gemm import cuda_device
from bnnrun.roles import Implementation, shown

SMALL = ("bench", "seconds=0.1", "rounds=3")
PRODUCT = (*SMALL, "workload=gemm", "m=64", "n=48", "k=96")
MLP = ("workload=mlp", "dataset=digits", "arch.width=64", "batch=20")
CONVNET = ("workload=convnet", "dataset=cifar10", "arch.channels=[8,8]", "arch.fc=[16]", "batch=4")


def records(folder):
    """The records of a run, by the names that its table shows."""
    run_records = [json.loads(p.read_text()) for p in (folder / "results" / "runs").glob("*.json")]
    return {shown_as(r["details"]): r for r in run_records}


def shown_as(details):
    """The name of a record's competitor."""
    implementation = Implementation.parse(f"{details['role']}:{details['variant']}")
    return shown(implementation, details["remark"])


def without_rooflines(names):
    """The competitors alone."""
    return {name for name in names if not name.startswith("roofline")}


def assert_not_timed(outcome, folder, *said):
    """One line says what is wrong, and nothing is recorded."""
    assert outcome.status == 1
    assert outcome.err.count("\n") == 1
    for words in ("wrong answer, not timed", *said):
        assert words in outcome.err
    assert not records(folder)


def emulate(monkeypatch, capability):
    """A GPU whose kernels run on the processor, PyTorch beside them."""
    device = EmulatedDevice(capability)
    monkeypatch.setattr(cuda_device, "missing", lambda: None)
    monkeypatch.setattr(cuda_device, "CudaDevice", lambda: device)
    monkeypatch.setattr(gemm_cuda, "FLUSHED", 1024)
    monkeypatch.setattr(workloads, "torch_device", lambda *_: torch.device("cpu"))
    return device
