"""A training step in a process of its own: what it answers, and how it ends."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from command import configure

from bnnrun.bench.eager import EagerStep
from bnnrun.bench.step_process import Job, StepProcess, step_process, without_dropout
from bnnrun.bench.train_step import competitors
from bnnrun.config import EngineChoice
from bnnrun.data import load
from bnnrun.errors import InputError, RunError
from bnnrun.records import Run
from bnnrun.train.trainer import Trainer

WORDS = ("bench", "workload=train_step", "dataset=digits", "arch.width=64", "threads=1")


def job_of(*words: str, eager: bool = False, keeps_memory: bool = True) -> Job:
    config = configure(*WORDS, *words)
    config = replace(config, trainer=replace(config.trainer, engine=EngineChoice.reference))
    whole = load(config.dataset)
    batch = slice(config.trainer.batch_size)
    return Job(config, replace(whole, train=whole.train.take(batch)), eager, keeps_memory)


@pytest.mark.parametrize("eager", [True, False])
def test_its_loss_is_that_of_the_same_network_here(tmp_path, eager):
    job = job_of("arch.dropout_hidden=0.5", eager=eager)
    with step_process(job) as process:
        before = process.loss()
        assert process.loss() == before  # nothing is drawn, nothing is updated
        for _ in range(3):
            assert process.seconds() > 0
        after = process.loss()
        assert process.mode() == ("" if eager else "eager")
    trainer = Trainer(job.config, job.dataset, torch.device("cpu"), tmp_path)
    network = trainer.network
    if eager:
        step = EagerStep(network, trainer.optimizer, job.config.optimizer)
        network = step.network
    with without_dropout(network):
        given = trainer.pixels, trainer.labels
        here = step.gradients(*given) if eager else trainer.engine.gradients(*given)
    assert before == pytest.approx(here.item(), rel=1e-5)
    assert after < before  # six steps on one minibatch
    assert {block.dropout for block in network.blocks[1:]} == {0.5}


def test_its_memory_is_that_of_its_network():
    sizes = []
    for width in (64, 1024):
        with step_process(job_of(f"arch.width={width}", eager=True)) as process:
            process.seconds()
            sizes.append(process.memory())
    weights = 4 * (64 * 1024 + 2 * 1024**2 + 10 * 1024)
    assert sizes[1] - sizes[0] > 3 * weights  # the weights and two means of their gradients


def page_faults(process: StepProcess) -> int:
    stat = Path(f"/proc/{process.process.process.pid}/stat").read_text(encoding="ascii")
    return int(stat.rpartition(")")[2].split()[7])


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc and /proc are for Linux")
def test_only_where_it_is_asked_for_is_freed_memory_kept():
    counts = []
    for kept in (True, False):
        with step_process(job_of("arch.width=2048", eager=True, keeps_memory=kept)) as process:
            for _ in range(3):
                process.seconds()
            before = page_faults(process)
            for _ in range(3):
                process.seconds()
            counts.append(page_faults(process) - before)
    if counts[1] == 0:
        pytest.skip("this system counts no page faults")
    assert 3 * counts[0] < counts[1]


def test_a_process_that_ends_says_why():
    job = job_of("optimizer=sgd", eager=True)  # which plain PyTorch's step does not have
    with step_process(job) as process, pytest.raises(RunError, match=r"status 1: AssertionError"):
        process.loss()


def test_a_process_that_is_killed_is_told_of():
    with step_process(job_of()) as process:
        process.process.process.kill()
        with pytest.raises(RunError, match=r"ended with status -9: it said nothing"):
            process.loss()


def test_no_process_is_left(tmp_path):
    config = configure(*WORDS)
    run = Run("", tmp_path, "")
    with competitors(config, run, torch.device("cpu")) as (found, _):
        processes = [each.memory.__self__.process.process for each in found if each.memory]
        assert len(processes) == 4
    assert all(process.poll() is not None for process in processes)


def test_a_minibatch_larger_than_the_training_set_is_refused(tmp_path):
    config = configure(*WORDS, "trainer.batch_size=5000")
    with (
        pytest.raises(InputError, match=r"trainer\.batch_size=5000: more than"),
        competitors(config, Run("", tmp_path, ""), torch.device("cpu")),
    ):
        pass
