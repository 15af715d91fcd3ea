"""The processor's kernels, compiled before they are needed: for container images and CI.

A kernel is compiled for the types of its arguments, so it has to be called: small networks of each
kind are trained for an epoch, packed and evaluated, each by a process of its own, several at once.
"""

import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor

from bnnrun.errors import RunError
from bnnrun.machine import cores

CONVNET = ("arch=convnet", "arch.fc=[64]")
TORCH7 = ("optimizer=shift_adamax", "norm=shift", "binarization=stochastic")
TWO_BITS = ("binarization.activation_bits=2", "binarization.weight_bits=2")
PACKED = (CONVNET, (), (*CONVNET, *TWO_BITS), (*CONVNET, *TORCH7), TORCH7, TWO_BITS)
TRAINED = ((*CONVNET, "binarization=weights"), ("binarization=none", "optimizer=sgd"))


def precompile() -> None:
    """Compile what training, packing and evaluating networks of the paper's kinds calls.

    Raises:
        RunError: a command failed
    """
    with ThreadPoolExecutor(cores()) as pool:
        list(pool.map(_run, (*PACKED, *TRAINED)))


def _run(words: tuple[str, ...]) -> None:
    """Train a network in a temporary folder; pack and evaluate it."""
    with tempfile.TemporaryDirectory() as folder:
        run, model = f"hydra.run.dir={folder}/run", f"{folder}/run"
        common = ("dataset=digits", "device=cpu", "threads=1", f"results_dir={folder}/results")
        _bnnrun("train", *common, "trainer.epochs=1", *words, run)
        if words in PACKED:
            _bnnrun("pack", f"run={model}")
            _bnnrun("eval", *common, f"model={model}", f"hydra.run.dir={folder}/eval")


def _bnnrun(*words: str) -> None:
    command = [sys.executable, "-m", "bnnrun", *words]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    if done.returncode != 0:
        reason = (done.stderr.strip() or f"exit status {done.returncode}").splitlines()[-1]
        raise RunError(f"doctor compile=true: `bnnrun {' '.join(words)}` failed: {reason}")
