"""A training step in a process of its own (worker.py): its memory is its own, and so is the C
library's way with it. Plain PyTorch can then be timed as it comes and with the memory that ours
keeps.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil
import torch

from bnnrun import machine
from bnnrun.bench.eager import EagerStep
from bnnrun.config import AdamConfig, BenchConfig
from bnnrun.data.dataset import Dataset
from bnnrun.nn.network import Network
from bnnrun.train.loop import torch_device
from bnnrun.train.trainer import Trainer
from bnnrun.worker import Worker, worker

SETTLE_S = 0.05  # idle threads wait in a loop for some 10 ms, in which nobody else may be timed


@contextmanager
def without_dropout(*networks: Network) -> Iterator[None]:
    """No dropout within the block: the draws of two networks differ."""
    blocks = [block for network in networks for block in network.blocks]
    shares = [block.dropout for block in blocks]
    for block in blocks:
        block.dropout = 0.0
    try:
        yield
    finally:
        for block, share in zip(blocks, shares, strict=True):
            block.dropout = share


@dataclass(frozen=True)
class Job:
    """What a process is to time.

    Attributes:
        dataset: whose training images are one minibatch
        eager:   plain PyTorch's step, not ours
        keeps_memory: with freed memory kept, as `bnnrun train` has it
    """

    config: BenchConfig
    dataset: Dataset
    eager: bool
    keeps_memory: bool

    @property
    def name(self) -> str:
        return "times a training step"

    def open(self) -> dict[str, Callable[[], object]]:
        if self.keeps_memory:
            device = torch_device(self.config.device, self.config.threads)
        else:
            device = torch.device("cpu")
            torch.set_num_threads(self.config.threads or machine.cores())
        before = psutil.Process().memory_info().rss
        trainer = Trainer(self.config, self.dataset, device, Path())
        minibatch = trainer.pixels, trainer.labels
        engine = None if self.eager else trainer.engine
        if self.eager:
            assert isinstance(self.config.optimizer, AdamConfig)
            eager = EagerStep(trainer.network, trainer.optimizer, self.config.optimizer)
            network, step = eager.network, partial(eager, *minibatch)
            gradients = partial(eager.gradients, *minibatch)
            del trainer  # whose weights eager has a copy of
        else:
            assert engine is not None
            network, step = trainer.network, partial(engine.step, *minibatch)
            gradients = partial(engine.gradients, *minibatch)

        def loss() -> float:
            with without_dropout(network):
                return gradients().item()

        def seconds() -> float:
            step()
            _wait(device)
            began = time.perf_counter()
            step()
            _wait(device)
            spent = time.perf_counter() - began
            time.sleep(SETTLE_S)
            return spent

        def memory() -> int:
            if device.type == "cuda":
                return torch.cuda.max_memory_allocated()
            return machine.peak_memory_bytes() - before

        return {
            "loss": loss,
            "seconds": seconds,
            "memory": memory,
            "mode": lambda: engine.mode if engine else "",
        }


class StepProcess:
    """A job's process."""

    def __init__(self, process: Worker) -> None:
        self.process = process

    def loss(self) -> float:
        """Of the minibatch, without dropout, by the weights as they are."""
        return float(self.process.ask("loss"))

    def seconds(self) -> float:
        """Time of a step that follows another, as in training, by the process's own clock."""
        return float(self.process.ask("seconds"))

    def memory(self) -> int:
        """Bytes that network and steps have added to the process at most; on a GPU, to that."""
        return int(self.process.ask("memory"))

    def mode(self) -> str:
        """How our step is launched: "eager", or a GPU's "CUDA graph"; "" of plain PyTorch."""
        return self.process.ask("mode")


@contextmanager
def step_process(job: Job) -> Iterator[StepProcess]:
    """The process of a job within the block; it starts while this one goes on."""
    with worker(job) as process:
        yield StepProcess(process)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()
