"""`kill -9` at random moments: what is on disk is always whole, and the run goes on exactly."""

import multiprocessing
import os
import random
import time
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from command import configure

from bnnrun.config import TrainConfig
from bnnrun.data import load
from bnnrun.train import checkpoint
from bnnrun.train.interrupt import StopRequest
from bnnrun.train.loop import torch_device
from bnnrun.train.trainer import Trainer

KILLS = int(os.environ.get("BNNRUN_KILLS", "3"))  # 50 take a few minutes
WORDS = ("dataset=digits", "arch.width=24", "threads=1")


def go_on(config: TrainConfig, folder: Path, begun: Connection) -> None:
    """Start the run in `folder`, or take it up where it was killed, and train to its end."""
    device = torch_device(config.device, config.threads)
    trainer = Trainer(config, load(config.dataset), device, folder)
    if (folder / checkpoint.STATE).exists():
        trainer.restore()
    begun.send(None)
    trainer.run(StopRequest())


def test_a_run_killed_again_and_again_ends_with_the_same_weights(tmp_path):
    config = configure("train", *WORDS, f"trainer.epochs={12 * KILLS}")
    # A server process that has the libraries loaded makes the restarts cheap.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["numba", "bnnrun.train.loop"])

    def start(folder: Path) -> multiprocessing.process.BaseProcess:
        here, there = context.Pipe()
        process = context.Process(target=go_on, args=(config, folder, there))
        process.start()
        here.recv()
        return process

    start(tmp_path / "warm").join()  # compiles what is not compiled yet
    through = start(tmp_path / "through")
    began = time.perf_counter()
    through.join()
    assert through.exitcode == 0
    epoch_s = (time.perf_counter() - began) / config.trainer.epochs

    rng, epochs = random.Random(0), []
    for _ in range(KILLS):
        process = start(tmp_path / "killed")
        # Between the first batch and about eight epochs on, in steps, evaluation and saving.
        process.join(rng.uniform(0, 8 * epoch_s))
        if process.exitcode is not None:
            break  # a machine that became much faster meanwhile
        process.kill()
        process.join()
        state = tmp_path / "killed" / checkpoint.STATE
        if state.exists():
            epochs.append(checkpoint.load(state, "checkpoint")["epoch"])
    assert epochs == sorted(epochs)
    assert len(set(epochs)) > 1, "the kills did not fall on different epochs"
    process = start(tmp_path / "killed")
    process.join()
    assert process.exitcode == 0

    for name, kind in ((checkpoint.STATE, "checkpoint"), (checkpoint.BEST, "network")):
        ours = checkpoint.load(tmp_path / "through" / name, kind)["network"]
        theirs = checkpoint.load(tmp_path / "killed" / name, kind)["network"]
        assert ours.keys() == theirs.keys()
        for key, tensor in ours.items():
            np.testing.assert_array_equal(tensor.numpy(), theirs[key].numpy(), err_msg=key)
