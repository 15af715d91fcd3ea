"""What a time is of: a product of matrices, a network's answers, or a training step."""

from dataclasses import dataclass
from itertools import groupby
from typing import Any

from bnnrun.records import Record
from bnnrun.report.bits import bits_of
from bnnrun.table import Parts

WORKLOADS = ("gemm", "mlp", "convnet", "train_step")
WORKLOAD = "workload m n k dataset images network"  # of `Work.value` in CSV files


@dataclass(frozen=True)
class Work:
    """The work of one call.

    Attributes:
        workload: gemm, mlp, convnet or train_step
        size:     (M, N, K) of a product, (data set, images) of a network, else (data set,)
        network:  its shape and, of a training step, its batch; "" of a product
    """

    workload: str
    size: tuple[Any, ...]
    network: str = ""

    @property
    def value(self) -> Parts:
        """'product, M 4096, N 4096, K 1024' or 'mlp 3 x 4096, mnist, 1,000 images'."""
        return self.named(self._described())

    def named(self, text: str) -> Parts:
        """The work by another name, its parts for programs."""
        sizes = self.size if self.workload == "gemm" else (None, None, None, *self.size)
        absent = [None] * (5 - len(sizes))
        return Parts(text, (self.workload, *sizes, *absent, self.network or None))

    @property
    def order(self) -> tuple[Any, ...]:
        """For sorting: by workload, then size."""
        place = WORKLOADS.index(self.workload) if self.workload in WORKLOADS else len(WORKLOADS)
        words = tuple(str(part) for part in self.size if isinstance(part, str))
        return place, words, tuple(p for p in self.size if isinstance(p, int)), self.network

    def _described(self) -> str:
        if self.workload == "gemm":
            return "product, M {}, N {}, K {}".format(*self.size)
        if self.workload == "train_step":
            return ", ".join(filter(None, ("training step", self.size[0], self.network)))
        data, images = self.size
        name = self.network or self.workload
        return f"{name}, {data}, {images:,} image{'s' if images > 1 else ''}"


def work(record: Record) -> Work:
    """The work of a record of a time."""
    config, workload = record.config, record.quantity.removesuffix("_time")
    if workload == "gemm":
        return Work(workload, (config["m"], config["n"], config["k"]))
    network, data = _network(config), config["dataset"]["name"]
    if workload != "train_step":
        return Work(workload, (data, config["batch"]), network)
    batch = config.get("trainer", {}).get("batch_size")
    return Work(workload, (data,), f"{network}{f', batch {batch}' if batch else ''}")


def _network(config: dict[str, Any]) -> str:
    """The shape, and the bits of weights and activations where they are not one and one."""
    bits = bits_of(config)
    more = f", {bits} bits" if bits is not None and set(bits.all) != {1} else ""
    return f"{shape(config)}{more}"


def shape(config: dict[str, Any]) -> str:
    """'mlp 3 x 512', 'convnet 2x128-2x1024'; "" where the configuration does not tell."""
    arch = config.get("arch", {})
    if "depth" in arch:
        return f"{arch.get('name', 'mlp')} {arch['depth']} x {arch.get('width')}"
    layers = [*(arch.get("channels") or ()), *(arch.get("fc") or ())]
    alike = ((units, len(list(group))) for units, group in groupby(layers))
    text = "-".join(f"{count}x{units}" if count > 1 else str(units) for units, count in alike)
    return f"{arch.get('name', 'convnet')} {text}" if text else ""
