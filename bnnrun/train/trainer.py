"""The state of a training run and what moves it on: epochs, evaluation, checkpoints."""

import csv
import io
import math
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bnnrun.config import NetworkConfig
from bnnrun.data.dataset import Dataset, Images
from bnnrun.data.preprocess import fit
from bnnrun.engine.choose import make_engine
from bnnrun.errors import InputError, RunError, Stopped
from bnnrun.files import remove_unfinished, write_text
from bnnrun.gemm.compiled import stopwatch
from bnnrun.nn.losses import squared_hinge
from bnnrun.nn.network import Network
from bnnrun.nn.optim import make_optimizer
from bnnrun.nn.schedule import learning_rate
from bnnrun.train import checkpoint, initial
from bnnrun.train.display import Display, duration
from bnnrun.train.interrupt import StopRequest


def make_network(config: NetworkConfig, dataset: Dataset) -> Network:
    """The network of a configuration with its initial weights, sampled from the seed."""
    seed = np.random.SeedSequence([config.seed, 0]).generate_state(1, np.uint64)[0] >> 1
    torch.manual_seed(int(seed))
    scaling = fit(config.dataset.preprocessing, dataset.train, dataset.spec.max_pixel)
    return Network(config.arch, config.binarization, config.norm, dataset.spec, scaling)


class Trainer:
    """The state of a run and what moves it on.

    The order of the images is a function of (seed, epoch), random bits are one of (seed, step):
    a resumed run goes on exactly as it would have and needs no generator's state.

    Attributes:
        engine:  what computes the steps
        epoch:   epochs done
        history: a row an epoch, as in metrics.csv
        best:    the row picked by validation: the lowest error, the latest of equals
    """

    def __init__(
        self,
        config: NetworkConfig,
        dataset: Dataset,
        device: torch.device,
        folder: Path,
        display: Display | None = None,
        *,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        """`check` is called before anything is written, and raises where that must not be."""
        self.config, self.dataset, self.device = config, dataset, device
        self.folder, self.display, self.check = folder, display or Display(), check
        self.batch_size, self.epochs = config.trainer.batch_size, config.trainer.epochs
        self.steps = len(dataset.train) // self.batch_size
        if self.steps == 0:
            raise InputError(
                f"trainer.batch_size={self.batch_size}: more than the {len(dataset.train):,} "
                f"training images of {dataset.name}"
            )
        self.network = make_network(config, dataset).to(device)
        self.optimizer = make_optimizer(self.network, config.optimizer)
        self.engine = make_engine(config.trainer.engine, self.network, self.optimizer, config.seed)
        # The whole set lives on the device as bytes: no worker processes for images of 3 KB.
        self.pixels = torch.from_numpy(dataset.train.pixels.copy()).to(device)
        self.labels = torch.from_numpy(dataset.train.labels.astype(np.int64)).to(device)
        self.epoch, self.step = 0, 0
        self.begun = False  # a step has been made by this process
        self.loss_sum = torch.zeros((), dtype=torch.float64, device=device)
        self.signs = self._signs()  # of the weights when the running epoch began
        self.history: list[dict[str, Any]] = []
        self.best: dict[str, Any] = {}
        self.initial: dict[str, Any] | None = None  # path, sha256, epoch of the first weights' file
        self.time_s = 0.0  # wall time of the epochs done and of the steps since
        self.epoch_time_s = 0.0

    def start_from(self, init: str) -> None:
        """Take the weights of another run, or of a network file, for the first epoch's."""
        self.initial = initial.load(self.network, init)

    @property
    def settings(self) -> dict[str, Any]:
        """What the run computes with: the configuration, and the engine that it has become."""
        init_sha256 = self.initial["sha256"] if self.initial else None
        return initial.settings(self.config, init_sha256, self.engine.name)

    def run(self, stop: StopRequest) -> None:
        """Train to the last epoch; on a stop request save and raise Stopped."""
        self.engine.compile(self.pixels[:2], self.labels[:2])
        while self.epoch < self.epochs:
            self._train_epoch(stop)
            self._finish_epoch()
            if stop and self.epoch < self.epochs:
                raise Stopped(self._stopped())

    def _train_epoch(self, stop: StopRequest) -> None:
        number = self.epoch + 1
        if self.step == 0:
            self.loss_sum.zero_()
            self.signs = self._signs()
            self.epoch_time_s = 0.0
        order = np.random.default_rng([self.config.seed, number]).permutation(len(self.labels))
        indices = torch.from_numpy(order).to(self.device)
        rate = learning_rate(self.config.optimizer, number, self.epochs)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        clock, spent = stopwatch(), self.epoch_time_s
        if not self.begun:
            self._step(indices)  # on a GPU it compiles kernels: no bar yet that tells the time left
            self.begun = True
        with self.display.epoch(number, self.epochs, self.steps, self.step) as bar:
            while self.step < self.steps:
                if stop and self.step:
                    self.epoch_time_s = spent + clock()
                    self._check_loss()
                    self.save()
                    raise Stopped(self._stopped())
                self._step(indices)
                self.epoch_time_s = spent + clock()
                bar.step(self.step)
            self._check_loss()  # waits for the device: its work belongs to the epoch's time
            self.epoch_time_s = spent + clock()

    def _step(self, indices: torch.Tensor) -> None:
        start = self.step * self.batch_size
        batch = indices[start : start + self.batch_size]
        self.loss_sum += self.engine.step(self.pixels[batch], self.labels[batch])
        self.step += 1

    def _saturated(self, row: dict[str, Any]) -> str:
        """'31 45 52': saturated share of each hidden layer, first to last."""
        blocks = self.network.blocks[:-1]
        return " ".join(f"{row[f'closed_{block.layer.name}_pct']:.0f}" for block in blocks)

    def _check_loss(self) -> None:
        """RunError where the loss is no number, before it is saved over a good checkpoint."""
        loss = self.loss_sum.item()
        if not math.isfinite(loss):
            raise RunError(
                f"the training loss of epoch {self.epoch + 1} is {loss}; what was saved before is "
                f"kept in {self.folder}. Try a lower optimizer.lr"
            )

    def _finish_epoch(self) -> None:
        loss = self.loss_sum.item() / self.steps
        self.epoch, self.step = self.epoch + 1, 0
        clock = stopwatch()
        valid_loss, valid_errors, saturated = self.evaluate(self.dataset.valid)
        _, test_errors, _ = self.evaluate(self.dataset.test)
        evaluation_s = clock()
        row = {
            "epoch": self.epoch,
            "lr": self.optimizer.param_groups[0]["lr"],
            "train_loss": loss,
            "valid_loss": valid_loss,
            "valid_error_pct": 100 * valid_errors / len(self.dataset.valid),
            "test_error_pct": 100 * test_errors / len(self.dataset.test),
            "flipped_pct": self._flipped_pct(),
            **{
                f"closed_{block.layer.name}_pct": 100 * share
                for block, share in zip(self.network.blocks, saturated, strict=False)
            },
            "images_per_s": self.steps * self.batch_size / self.epoch_time_s,
            "train_s": self.epoch_time_s,
            "evaluation_s": evaluation_s,
        }
        self.time_s += self.epoch_time_s + evaluation_s
        self.history.append(row)
        if not self.best or row["valid_error_pct"] <= self.best["valid_error_pct"]:
            self.best = row
            self._save_best()
        self.save()
        self._write_metrics()
        self.display.line(self._line(row))

    def evaluate(self, images: Images) -> tuple[float, int, list[float]]:
        """(mean squared hinge, wrong answers, saturated share of each hidden layer) of `images`."""
        loss, wrong = 0.0, 0
        saturated = np.zeros(len(self.network.blocks) - 1)
        for start in range(0, len(images), self.config.trainer.eval_batch_size):
            part = images.take(slice(start, start + self.config.trainer.eval_batch_size))
            pixels = torch.from_numpy(part.pixels.copy()).to(self.device)
            scores, shares = self.engine.evaluate(pixels)
            labels = torch.from_numpy(part.labels.astype(np.int64)).to(self.device)
            loss += squared_hinge(scores, labels).item() * len(part)
            wrong += int((scores.argmax(1) != labels).sum().item())
            saturated += np.array(shares) * len(part)
        return loss / len(images), wrong, (saturated / len(images)).tolist()

    def _signs(self) -> list[torch.Tensor]:
        """Which binary weights are +1; real weights are not asked."""
        products = (block.product for block in self.network.blocks)
        return [p.weight.detach() >= 0 for p in products if p.binary]

    def _flipped_pct(self) -> float:
        """Share of binary weights whose sign differs from when the epoch began."""
        pairs = list(zip(self.signs, self._signs(), strict=True))
        flipped = sum(int((then != now).sum().item()) for then, now in pairs)
        return 100 * flipped / max(1, sum(now.numel() for _, now in pairs))

    def _header(self) -> dict[str, Any]:
        spec = self.dataset.spec
        parts = (self.dataset.train, self.dataset.valid, self.dataset.test)
        part_md5 = self.dataset.part_md5
        return {
            "config": self.settings,
            "images": {
                "image_shape": list(spec.image_shape),
                "classes": list(spec.classes),
                "levels": spec.max_pixel,
                "train_valid_test": [len(part) for part in parts],
                "md5": [source.md5 for source in self.dataset.sources],
                **({"part_md5": part_md5} if part_md5 else {}),
            },
        }

    def _save_best(self) -> None:
        self.check()
        checkpoint.save(
            self.folder / checkpoint.BEST,
            "network",
            {**self._header(), "row": self.best, "network": self.network.state_dict()},
        )

    def save(self) -> None:
        """Write the checkpoint: at an epoch's end, or in the middle of one."""
        self.check()
        checkpoint.save(
            self.folder / checkpoint.STATE,
            "checkpoint",
            {
                **self._header(),
                "epoch": self.epoch,
                "step": self.step,
                "loss_sum": self.loss_sum.item(),
                "time_s": self.time_s,
                "epoch_time_s": self.epoch_time_s,
                "signs": self.signs if self.step else [],
                "history": self.history,
                "best": self.best,
                "init": self.initial,
                "network": self.network.state_dict(),
                "optimizer": self.optimizer.state_dict(),
            },
        )

    def restore(self) -> None:
        """Take up the checkpoint in the run folder; InputError where it is of another run."""
        path = self.folder / checkpoint.STATE
        state = checkpoint.load(path, "checkpoint")
        self.initial = state.get("init")  # the file itself is not read again
        header = self._header()
        differing = _difference(state["config"], header["config"])
        differing = differing or _difference(state["images"], header["images"], "images")
        if differing is not None:
            key, then, now = differing
            raise InputError(
                f"{path}: made with {key}={then}, not {key}={now}: leave it as it was, or start a "
                f"new run, from these weights with {shlex.quote(f'init={self.folder}')}"
            )
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.epoch, self.step = state["epoch"], state["step"]
        self.loss_sum.fill_(state["loss_sum"])
        self.time_s, self.epoch_time_s = state["time_s"], state["epoch_time_s"]
        self.history, self.best = state["history"], state["best"]
        self.signs = [signs.to(self.device) for signs in state["signs"]]
        if self.history:
            self._write_metrics()
        for name in (checkpoint.STATE, checkpoint.BEST):
            remove_unfinished(self.folder / name)

    def _stopped(self) -> str:
        where = f"epoch {self.epoch + 1}, step {self.step}" if self.step else f"epoch {self.epoch}"
        return f"stopped after {where} and saved; go on with: bnnrun train resume={self.folder}"

    def _write_metrics(self) -> None:
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=list(self.history[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.history)
        write_text(self.folder / "metrics.csv", text.getvalue())

    def _line(self, row: dict[str, Any]) -> str:
        left = (self.epochs - self.epoch) * self.time_s / self.epoch
        return (
            f"epoch {row['epoch']:>{len(str(self.epochs))}}/{self.epochs}  "
            f"loss {row['train_loss']:.4f}  valid {row['valid_error_pct']:5.2f} %  "
            f"test {row['test_error_pct']:5.2f} %  lr {row['lr']:.1e}  "
            f"flips {row['flipped_pct']:.2f} %  saturated {self._saturated(row)} %  "
            f"{row['images_per_s']:,.0f}/s  left {duration(left)}  "
            f"best {self.best['valid_error_pct']:.2f} % at {self.best['epoch']}"
        )


def _difference(then: Any, now: Any, key: str = "") -> tuple[str, Any, Any] | None:
    """The first setting in which two configurations compute different things."""
    if isinstance(then, dict) and isinstance(now, dict):
        for name in [*then, *(name for name in now if name not in then)]:
            path = f"{key}.{name}" if key else name
            if (difference := _difference(then.get(name), now.get(name), path)) is not None:
                return difference
        return None
    return None if then == now else (key, then, now)
