"""One step of training against the same step in plain PyTorch."""

import torch

from bnnrun.bench.eager import EagerStep
from bnnrun.bench.measure import Competitor
from bnnrun.config import AdamConfig, BenchConfig, Binarizer, NormKind
from bnnrun.data import load
from bnnrun.errors import InputError
from bnnrun.records import Run
from bnnrun.train.trainer import Trainer

YARDSTICK = "eager float32"


def train_step(config: BenchConfig, run: Run, device: torch.device) -> list[Competitor]:
    """Our step and plain PyTorch's, from the same weights, on the same minibatch."""
    b = config.binarization
    if not isinstance(config.optimizer, AdamConfig):
        raise InputError(f"optimizer={config.optimizer.name}: the competitor has only adam")
    if config.norm.name is not NormKind.batch:
        raise InputError(f"norm={config.norm.name.value}: the competitor has only batch")
    if Binarizer.stochastic in (b.weights, b.activations) or not b.gate:
        raise InputError("binarization: the competitor has no drawn signs and always the gate")
    dataset = load(config.dataset)
    trainer = Trainer(config, dataset, device, run.folder)
    eager = EagerStep(trainer.network, trainer.optimizer, config.optimizer)
    batch = slice(config.trainer.batch_size)
    pixels, labels = trainer.pixels[batch], trainer.labels[batch]

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize()

    return [
        Competitor("bnnrun", lambda: trainer.train_step(pixels, labels),
                   lambda: _differs(trainer, eager, pixels, labels), wait),
        Competitor(YARDSTICK, lambda: eager(pixels, labels), lambda: None, wait),
    ]  # fmt: skip


def _differs(
    trainer: Trainer, eager: EagerStep, pixels: torch.Tensor, labels: torch.Tensor
) -> str | None:
    """What differs after one step of both without dropout, whose draws differ; None if nothing.

    Sums of ±1 are exact, but the batch norms round in their own order, so one activation within
    rounding of zero may take the other sign: up to 1 % of a gradient's norm is let pass. The
    updates start from the same gradients and must agree to 1e-4 of their size, lr · c.
    """
    ours, theirs = list(trainer.network.parameters()), list(eager.network.parameters())
    blocks = (*trainer.network.blocks, *eager.network.blocks)
    shares = [block.dropout for block in blocks]
    for block in blocks:
        block.dropout = 0.0
    loss = trainer.gradients(pixels, labels).item()
    expected = eager.gradients(pixels, labels).item()
    for block, share in zip(blocks, shares, strict=True):
        block.dropout = share
    if abs(loss - expected) > 1e-2 * abs(expected):
        return f"loss {loss:.6f}, plain PyTorch's is {expected:.6f}"
    for i, (p, q) in enumerate(zip(ours, theirs, strict=True)):
        assert p.grad is not None and q.grad is not None
        if (p.grad - q.grad).norm() > 1e-2 * q.grad.norm() + 1e-12:
            return f"gradient of parameter {i} is off by more than 1 %"
        q.grad.copy_(p.grad)
    sizes = [g["lr"] * g["scale"] for g in trainer.optimizer.param_groups for _ in g["params"]]
    trainer.optimizer.step()
    eager.update()
    for i, (p, q) in enumerate(zip(ours, theirs, strict=True)):
        off = (p - q).abs().max().item()
        if off > 1e-4 * sizes[i] + 1e-6:  # the second is the rounding of numbers near 1
            return f"parameter {i} is off by {off:.1e} after an update of {sizes[i]:.1e}"
    return None
