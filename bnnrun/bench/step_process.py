"""A training step in a process of its own: its memory is its own, and so is the C library's way
with it. Plain PyTorch can then be timed as it comes and with the memory that ours keeps.

Run as a module it is that process: it reads a `Job` from the file named, then answers each line on
its input.
"""

import os
import pickle
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil
import torch

from bnnrun import machine
from bnnrun.bench.eager import EagerStep
from bnnrun.config import AdamConfig, BenchConfig
from bnnrun.data.dataset import Dataset
from bnnrun.errors import RunError
from bnnrun.nn.network import Network
from bnnrun.train.loop import torch_device
from bnnrun.train.trainer import Trainer

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
        kept:    with freed memory kept, as `bnnrun train` has it
    """

    config: BenchConfig
    dataset: Dataset
    eager: bool
    kept: bool


class StepProcess:
    """A job's process. RunError, with the process's last words, where it ends by itself."""

    def __init__(self, process: subprocess.Popen[str], words: Path) -> None:
        """`words` is the file that its stderr goes to."""
        self.process, self.words = process, words

    def loss(self) -> float:
        """Of the minibatch, without dropout, by the weights as they are."""
        return float(self._ask("loss"))

    def seconds(self) -> float:
        """Time of a step that follows another, as in training, by the process's own clock."""
        return float(self._ask("seconds"))

    def memory(self) -> int:
        """Bytes that network and steps have added to the process at most; on a GPU, to that."""
        return int(self._ask("memory"))

    def mode(self) -> str:
        """How our step is launched: "eager", or a GPU's "CUDA graph"; "" of plain PyTorch."""
        return self._ask("mode")

    def _ask(self, word: str) -> str:
        assert self.process.stdin is not None and self.process.stdout is not None
        try:
            self.process.stdin.write(f"{word}\n")
            self.process.stdin.flush()
            answer = self.process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if answer:
            return answer.strip()
        status = self.process.wait()
        last = self.words.read_text(encoding="utf-8", errors="replace").split("\n")[-2:-1]
        raise RunError(f"a process that times a training step ended with status {status}: "
                       f"{last[0] if last else 'it said nothing'}")  # fmt: skip


@contextmanager
def step_process(job: Job) -> Iterator[StepProcess]:
    """The process of a job within the block; it starts while this one goes on."""
    with tempfile.TemporaryDirectory() as folder:
        path, words = Path(folder) / "job", Path(folder) / "words"
        path.write_bytes(pickle.dumps(job))
        with (
            words.open("w", encoding="utf-8") as stderr,
            subprocess.Popen(
                [sys.executable, "-m", "bnnrun.bench.step_process", str(path)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, encoding="utf-8",
            ) as process,
        ):  # fmt: skip
            try:
                yield StepProcess(process, words)
            finally:
                process.kill()
                assert process.stdin is not None
                with suppress(BrokenPipeError):  # a question that it died before
                    process.stdin.close()


def _serve(path: Path) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, who ends this process
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what anything prints is no answer
    job: Job = pickle.loads(path.read_bytes())
    if job.kept:
        device = torch_device(job.config.device, job.config.threads)
    else:
        device = torch.device("cpu")
        torch.set_num_threads(job.config.threads or machine.cores())
    before = psutil.Process().memory_info().rss
    trainer = Trainer(job.config, job.dataset, device, Path())
    given = trainer.pixels, trainer.labels
    engine = None if job.eager else trainer.engine
    if job.eager:
        assert isinstance(job.config.optimizer, AdamConfig)
        eager = EagerStep(trainer.network, trainer.optimizer, job.config.optimizer)
        network, step = eager.network, partial(eager, *given)
        gradients = partial(eager.gradients, *given)
        del trainer  # whose weights eager has a copy of
    else:
        assert engine is not None
        network, step = trainer.network, partial(engine.step, *given)
        gradients = partial(engine.gradients, *given)

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

    asked: dict[str, Callable[[], object]] = {
        "loss": loss,
        "seconds": seconds,
        "memory": memory,
        "mode": lambda: engine.mode if engine else "",
    }
    for line in sys.stdin:
        print(asked[line.strip()](), file=answers, flush=True)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    _serve(Path(sys.argv[1]))
