"""`kill -9` at random moments: what is on disk is always whole, and the run goes on exactly."""

import itertools
import os
import random
import time
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
from command import configure
from forked import server

from bnnrun.config import TrainConfig
from bnnrun.data import load
from bnnrun.train import checkpoint
from bnnrun.train.interrupt import StopRequest
from bnnrun.train.loop import torch_device
from bnnrun.train.trainer import Trainer

KILLS = int(os.environ.get("BNNRUN_KILLS", "3"))  # 50 take a few minutes
# The reference: processes start the sooner without compiled kernels.
WORDS = ("dataset=digits", "arch.width=24", "threads=1", "trainer.engine=reference")


def go_on(config: TrainConfig, folder: Path, told: Connection, steps: int) -> None:
    """Start the run in `folder`, or take it up where it was killed, and train to its end.

    Tells `told` when it begins and when `steps` steps have been made (0: never).
    """
    device = torch_device(config.device, config.threads)
    trainer = Trainer(config, load(config.dataset), device, folder)
    if (folder / checkpoint.STATE).exists():
        trainer.restore()
    told.send("begins")
    asked = itertools.count(1)

    def count() -> bool:  # a run asks before each step whether it is to stop
        if next(asked) == steps:
            told.send(f"{steps} steps")
        return False

    trainer.run(StopRequest(elsewhere=count))


def test_a_run_killed_again_and_again_ends_with_the_same_weights(tmp_path):
    config = configure("train", *WORDS, f"trainer.epochs={12 * KILLS}")
    steps = len(load(config.dataset).train) // config.trainer.batch_size  # of an epoch

    def start(folder: Path, after: int = 0) -> BaseProcess:
        """Return the process when it has begun, or when it has made `after` steps."""
        here, there = server().Pipe()
        process = server().Process(target=go_on, args=(config, folder, there, after))
        process.start()
        there.close()  # so that a process that dies is the end of the pipe, not a long wait
        assert here.recv() == "begins"
        if after:
            assert here.recv() == f"{after} steps"
        return process

    through = start(tmp_path / "through")
    began = time.perf_counter()
    through.join()
    assert through.exitcode == 0
    epoch_s = (time.perf_counter() - began) / config.trainer.epochs

    rng, epochs = random.Random(0), []
    for _ in range(KILLS):
        # Up to eight epochs of steps on, whatever the machine's speed, then at any moment of about
        # an epoch: in a step, in evaluation, in saving.
        process = start(tmp_path / "killed", rng.randrange(1, 8 * steps))
        process.join(rng.uniform(0, epoch_s))
        assert process.exitcode is None, "the run ended before it was killed"
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
