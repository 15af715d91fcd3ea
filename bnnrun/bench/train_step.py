"""One step of training against the same step in plain PyTorch."""

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial

import torch

from bnnrun.architecture import describe, has_one_bit
from bnnrun.bench import step_roofline
from bnnrun.bench.eager import EagerStep
from bnnrun.bench.measure import Competitor, Details, Explain, Timings
from bnnrun.bench.step_process import Job, StepProcess, step_process, without_dropout
from bnnrun.config import AdamConfig, BenchConfig, Binarizer, EngineChoice, Estimator, NormName
from bnnrun.data import load
from bnnrun.data.dataset import Dataset
from bnnrun.engine.cuda.captured_step import WARM
from bnnrun.errors import InputError
from bnnrun.nn.losses import squared_hinge
from bnnrun.records import Run
from bnnrun.roles import YARDSTICK, Form, Implementation, Role
from bnnrun.table import print_table
from bnnrun.train.trainer import Trainer

KEPT = Implementation.of(Role.float32, "torch", Form.memory_kept)
ENGINES = EngineChoice.fast, EngineChoice.reference
LOSS_OFF = 0.05  # of a process's first loss from that of the check: signs near 0 may be others


@contextmanager
def competitors(
    config: BenchConfig, run: Run, device: torch.device
) -> Iterator[tuple[list[Competitor], Explain]]:
    """Our steps and plain PyTorch's, from the same weights, on the same minibatch.

    Each is timed in a process of its own; what it computes is checked here before. On the processor
    the competitors include the rates that a roofline is made of. Yields (competitors, explain);
    explain(timings) prints the breakdown into parts and returns further fields of the records.
    """
    b = config.binarization
    if not isinstance(config.optimizer, AdamConfig):
        raise InputError(f"optimizer={config.optimizer.name}: the competitor has only adam")
    if config.norm.name is not NormName.batch:
        raise InputError(f"norm={config.norm.name.value}: the competitor has only batch")
    if Binarizer.stochastic in (b.weights, b.activations):
        raise InputError("binarization: the competitor has no sampled signs")
    if b.estimator is not Estimator.ste:
        raise InputError(f"binarization.estimator={b.estimator.value}: the competitor has only ste")
    if not has_one_bit(b):
        raise InputError(f"binarization: {describe(b)}; the competitor has only one bit")
    dataset = _first_minibatch(load(config.dataset), config.trainer.batch_size)
    on_cpu = device.type == "cpu"
    jobs = {
        _ours(engine): Job(_with(config, engine), dataset, False, keeps_memory=True)
        for engine in ENGINES
    }
    jobs[YARDSTICK] = Job(config, dataset, True, keeps_memory=not on_cpu)
    if on_cpu:
        jobs[KEPT] = Job(config, dataset, True, keeps_memory=True)
    with ExitStack() as stack:
        processes = {each: stack.enter_context(step_process(job)) for each, job in jobs.items()}
        trainers = {
            engine: Trainer(_with(config, engine), dataset, device, run.folder)
            for engine in ENGINES
        }
        first = trainers[EngineChoice.reference]
        minibatch = first.pixels, first.labels
        eager = EagerStep(first.network, first.optimizer, config.optimizer)
        with without_dropout(eager.network):
            loss = eager.gradients(*minibatch).item()
        checks = {
            _ours(engine): partial(_check, trainer, config.optimizer, *minibatch)
            for engine, trainer in trainers.items()
        }
        entries = [
            Competitor(
                implementation,
                process.seconds,
                partial(_process_differs, process, loss, checks.get(implementation)),
                timed=process.seconds,
                memory=process.memory,
            )
            for implementation, process in processes.items()
        ]
        if not on_cpu:
            yield entries, lambda timings: _modes(processes)
            return
        entries += step_roofline.step_rooflines()
        macs = {competitor.implementation: competitor.macs for competitor in entries}
        yield entries, partial(_parts, trainers, minibatch, macs)


def _first_minibatch(dataset: Dataset, size: int) -> Dataset:
    """The data set with one minibatch to train on: all that a step's time and memory need."""
    if len(dataset.train) < size:
        raise InputError(
            f"trainer.batch_size={size}: more than the {len(dataset.train):,} training images of "
            f"{dataset.name}"
        )
    return replace(
        dataset,
        train=dataset.train.take(slice(size)),
        valid=dataset.valid.take(slice(1)),
        test=dataset.test.take(slice(1)),
    )


def _process_differs(
    process: StepProcess, loss: float, check: Callable[[], str | None] | None
) -> str | None:
    """What is wrong with the step, or with the process that is to time it; None if nothing."""
    if check is not None and (wrong := check()) is not None:
        return wrong
    first = process.loss()
    if not math.isclose(first, loss, rel_tol=LOSS_OFF):
        return f"the loss of its process is {first:.6g}, not {loss:.6g}"
    for _ in range(WARM + 1):  # a GPU's step is recorded before it is timed
        process.seconds()
    return None


def _modes(processes: dict[Implementation, StepProcess]) -> Details:
    """For records: whether our steps were one CUDA graph."""
    return {each: {"step": mode} for each, p in processes.items() if (mode := p.mode())}


def _parts(
    trainers: dict[EngineChoice, Trainer],
    minibatch: tuple[torch.Tensor, torch.Tensor],
    macs: dict[Implementation, float],
    timings: Timings,
) -> Details:
    """Print where the time of our steps goes, beside the fast one's roofline; fields of records."""
    least = step_roofline.roofline_s(
        trainers[EngineChoice.fast].engine, len(minibatch[0]), timings, macs
    )
    spent = {
        engine: step_roofline.spent(partial(ours.engine.step, *minibatch))
        for engine, ours in trainers.items()
    }
    step_s = timings[_ours(EngineChoice.fast)].median_s
    names = [*step_roofline.PARTS, step_roofline.REST]
    rows = [
        [
            name,
            *(f"{1e3 * seconds[name]:.1f}" for seconds in spent.values()),
            f"{1e3 * least.get(name, 0):.1f}",
        ]
        for name in names
    ]
    sums = [sum(seconds.values()) for seconds in (*spent.values(), least)]
    rows.append(["one step", *(f"{1e3 * total:.1f}" for total in sums)])
    print_table(
        ["part, ms", *(engine.value for engine in spent), "roofline, fast"],
        rows,
        title=f"where the time goes, one step each; the roofline is {sums[-1] / step_s:.0%} of the "
        "fast step's median",
    )
    details: Details = {
        _ours(engine): {"parts_ms": {k: 1e3 * v for k, v in seconds.items()}}
        for engine, seconds in spent.items()
    }
    details[_ours(EngineChoice.fast)]["floor_ms"] = {k: 1e3 * v for k, v in least.items()}
    return details


def _ours(engine: EngineChoice) -> Implementation:
    return Implementation.of(Role.ours, engine.value)


def _with(config: BenchConfig, engine: EngineChoice) -> BenchConfig:
    """The configuration with another engine."""
    return replace(config, trainer=replace(config.trainer, engine=engine))


def _check(
    trainer: Trainer, config: AdamConfig, pixels: torch.Tensor, labels: torch.Tensor
) -> str | None:
    """What differs between a step of ours and plain PyTorch's; None if nothing.

    Block by block, from the same input: sums of ±1 are exact, but the first layer and the batch
    norms round in their own order, an activation within rounding of zero may take the other sign,
    and after one such sign every layer differs more. Up to 1 % of a gradient's norm is let pass;
    updates must agree to 1e-3 of their size, lr · c.
    """
    eager = EagerStep(trainer.network, trainer.optimizer, config)
    with without_dropout(trainer.network, eager.network):
        return (
            _blocks_differ(trainer, eager, pixels, labels, deferred=False)
            or _gradients_differ(trainer, eager)
            or _updates_differ(trainer, eager)
            or _blocks_differ(trainer, eager, pixels, labels, deferred=True)
            or _whole_updates_differ(trainer, eager, config)
        )


def _blocks_differ(
    trainer: Trainer,
    eager: EagerStep,
    pixels: torch.Tensor,
    labels: torch.Tensor,
    *,
    deferred: bool,
) -> str | None:
    """Forward and backward of each block; gradients are left in the parameters of both.

    What comes back to a block is random, but for the last, where it is the loss's gradient.
    """
    network, a = trainer.network, trainer.network.input(pixels)
    trainer.engine.deferred = deferred
    network.zero_grad(set_to_none=True)
    eager.adam.zero_grad(set_to_none=True)
    for p, q in zip(network.parameters(), eager.network.parameters(), strict=True):
        q.data.copy_(p.data)
    for i, (block, plain) in enumerate(zip(network.blocks, eager.network.blocks, strict=True)):
        x, y = (a.detach().clone().requires_grad_(i > 0) for _ in range(2))
        ours, theirs = trainer.engine.block(block, x), eager.forward(plain, y)
        name = block.layer.name
        if block.layer.last:
            if (ours - theirs).abs().max() > 1e-3 * theirs.abs().max():
                return f"scores of {name} are off"
            (g,) = torch.autograd.grad(squared_hinge(theirs, labels), theirs, retain_graph=True)
        else:
            # Where a sum is the mean of its batch, y is 0 and its sign that of a rounding.
            if (ours - theirs).abs().gt(1e-3 * theirs.abs().max()).double().mean() > 2e-3:
                return f"activations of {name} are others"
            g = torch.randn_like(ours)
        ours.backward(g)
        theirs.backward(g)
        if i and _off(x.grad, y.grad):
            return f"the gradient that leaves {name} is off by more than 1 %"
        a = ours
    trainer.engine.deferred = False
    return None


def _off(g: torch.Tensor | None, expected: torch.Tensor | None) -> bool:
    assert g is not None and expected is not None
    return bool((g - expected).norm() > 1e-2 * expected.norm() + 1e-12)


def _gradients_differ(trainer: Trainer, eager: EagerStep) -> str | None:
    theirs = eager.network.parameters()
    for (name, p), q in zip(trainer.network.named_parameters(), theirs, strict=True):
        if _off(p.grad, q.grad):
            return f"gradient of {name} is off by more than 1 %"
    return None


def _updates_differ(trainer: Trainer, eager: EagerStep) -> str | None:
    """From the same gradients."""
    ours, theirs = list(trainer.network.parameters()), list(eager.network.parameters())
    for p, q in zip(ours, theirs, strict=True):
        assert p.grad is not None and q.grad is not None
        q.grad.copy_(p.grad)
    sizes = [g["lr"] * g["scale"] for g in trainer.optimizer.param_groups for _ in g["params"]]
    _update(trainer)
    eager.update()
    for i, (p, q) in enumerate(zip(ours, theirs, strict=True)):
        off = (p - q).abs().max().item()
        if off > 1e-3 * sizes[i] + 1e-6:  # the second is the rounding of numbers near 1
            return f"parameter {i} is off by {off:.1e} after an update of {sizes[i]:.1e}"
    return None


def _whole_updates_differ(trainer: Trainer, eager: EagerStep, config: AdamConfig) -> str | None:
    """The same where gradients may never lie in memory.

    Each gradient is taken from how the update moved their mean; then the weights must be those
    that the moved mean gives.
    """
    ours = list(trainer.network.parameters())
    states = [trainer.optimizer.state[p] for p in ours]
    before = [(p.detach().clone(), s["m"].clone()) for p, s in zip(ours, states, strict=True)]
    _update(trainer)
    groups = [g for g in trainer.optimizer.param_groups for _ in g["params"]]
    for i, (p, q) in enumerate(zip(ours, eager.network.parameters(), strict=True)):
        (w, m), state, group = before[i], states[i], groups[i]
        if _off((state["m"] - config.beta1 * m) / (1 - config.beta1), q.grad):
            return f"the gradient that moved parameter {i} is off by more than 1 %"
        t, size = state["t"], group["lr"] * group["scale"]
        rate = size * math.sqrt(1 - config.beta2**t) / (1 - config.beta1**t)
        expected = w - rate * state["m"] / (state["v"].sqrt() + config.eps)
        expected = expected.clamp(-1, 1) if group["clip"] else expected
        if (off := (p - expected).abs().max().item()) > 1e-3 * size + 1e-6:
            return f"parameter {i} is off by {off:.1e} after a step of {size:.1e}"
    return None


def _update(trainer: Trainer) -> None:
    """The step's update, as the engine makes it."""
    trainer.engine.advance()
    trainer.engine.update()
