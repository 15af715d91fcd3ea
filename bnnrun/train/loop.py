"""`bnnrun train`: data, trainer, record."""

import numpy as np
import torch

from bnnrun import architecture, machine
from bnnrun.config import Device, TrainConfig
from bnnrun.data import load
from bnnrun.data.dataset import Dataset
from bnnrun.engine.memory import keep_freed
from bnnrun.errors import InputError
from bnnrun.gemm.compiled import set_threads
from bnnrun.records import Record, Run
from bnnrun.train.display import Display, duration
from bnnrun.train.interrupt import stop_request
from bnnrun.train.memory import check_memory
from bnnrun.train.trainer import Trainer

# Columns of metrics.csv that a record keeps whole.
CURVE = ("lr", "train_loss", "valid_loss", "valid_error_pct", "test_error_pct", "flipped_pct")


def train(config: TrainConfig, run: Run) -> list[Record]:
    """Train a network in `run.folder`; one record, the test error of the epoch picked."""
    device = torch_device(config.device, config.threads)
    display = Display()
    dataset = load(config.dataset)
    if device.type == "cpu":
        check_memory(config, dataset)
    trainer = Trainer(config, dataset, device, run.folder, display, check=run.check)
    if config.resume is not None:
        trainer.restore()
        display.line(f"resumed {run.folder} after epoch {trainer.epoch}")
    elif config.init is not None:
        trainer.start_from(config.init)
        display.line(f"starts from the weights of {config.init}")
    display.line(f"{describe(config, dataset)}; on {device}; writes {run.folder}")
    for note in dataset.notes:
        display.line(f"note: {note}")
    with stop_request() as stop:
        trainer.run(stop)
    return [_record(trainer, config, run, display)]


def torch_device(device: Device, threads: int) -> torch.device:
    """The torch device of a choice, with threads and memory of the processor set up for it."""
    threads = threads or machine.cores()
    keep_freed()
    torch.set_num_threads(threads)
    set_threads(threads)
    if device is Device.cuda and not torch.cuda.is_available():
        raise InputError(
            "device=cuda: PyTorch sees no CUDA device here; `bnnrun doctor` says why, "
            "device=cpu works everywhere"
        )
    if device is Device.cpu or not torch.cuda.is_available():
        return torch.device("cpu")
    # Float32 products stay float32: TF32 would round gradients and the first layer's input.
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    return torch.device("cuda")


def describe(config: TrainConfig, dataset: Dataset) -> str:
    """One line on what is trained."""
    quantized = architecture.describe(config.binarization)
    return (
        f"{dataset.name}: {len(dataset.train):,} training, {len(dataset.valid):,} validation, "
        f"{len(dataset.test):,} test images; {config.arch.name}, {quantized}; "
        f"{config.optimizer.name}, seed {config.seed}"
    )


def _record(trainer: Trainer, config: TrainConfig, run: Run, display: Display) -> Record:
    """The test error of the epoch that validation picked, and what stands around it."""
    lowest = min(trainer.history, key=lambda row: row["test_error_pct"])
    last, best = trainer.history[-1], trainer.best
    display.line(
        f"test error {best['test_error_pct']:.2f} % at epoch {best['epoch']}, picked by its "
        f"validation error {best['valid_error_pct']:.2f} %; at the last epoch "
        f"{last['test_error_pct']:.2f} %; took {duration(trainer.time_s)}"
    )
    dataset = trainer.dataset
    return Record(
        experiment=run.experiment,
        # Weights that were trained before are no run of the paper's.
        cell="" if trainer.initial else config.cell,
        quantity="test_error",
        value=best["test_error_pct"],
        unit="%",
        seed=config.seed,
        device=trainer.device.type,
        details={
            "protocol": "epoch of the lowest validation error, the latest of equals",
            "epoch": best["epoch"],
            "epochs": trainer.epochs,
            "valid_error_pct": best["valid_error_pct"],
            "last_epoch_test_error_pct": last["test_error_pct"],
            "best_on_test_error_pct": lowest["test_error_pct"],
            # By epoch, from the first: what Figure 1 draws, without the run folder.
            "curve": {key: [row[key] for row in trainer.history] for key in CURVE},
            "images_per_s": float(np.median([row["images_per_s"] for row in trainer.history])),
            "threads": torch.get_num_threads(),
            "arithmetic": {
                block.layer.name: str(trainer.engine.describe(block))
                for block in trainer.network.blocks
            },
            "step": trainer.engine.mode,
            "run_folder": str(trainer.folder),
            **({"init": trainer.initial} if trainer.initial else {}),
        },
        config=trainer.settings,
        command=run.command,
        data=dataset.described(),
        wall_time_s=trainer.time_s,
        gpu=machine.gpu() if trainer.device.type == "cuda" else None,
    )
