"""`bnnrun bench`: what is timed, the table of it, and the records."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psutil
import torch

from bnnrun import machine
from bnnrun.architecture import describe, has_one_bit
from bnnrun.bench import gemm, gemm_cuda, network, peers, roofline
from bnnrun.bench import train_step as step
from bnnrun.bench.measure import Competitor, Explain, Timing, explain_nothing, measure
from bnnrun.config import BenchConfig, BenchKernel, Device, Workload, computed
from bnnrun.errors import InputError
from bnnrun.records import Record, Run
from bnnrun.roles import YARDSTICK, Implementation, Role
from bnnrun.table import print_table
from bnnrun.train.loop import torch_device


def bench(config: BenchConfig, run: Run) -> list[Record]:
    """Time the workload of `config`; one record a competitor."""
    began = time.perf_counter()
    chosen = config.workload is Workload.train_step or config.device is Device.cuda
    on = config.device if chosen else Device.cpu
    device = torch_device(on, config.threads)
    if config.layers and config.workload not in (Workload.mlp, Workload.convnet):
        raise InputError(
            f"layers=true: times the layers of workload=mlp and convnet, not of "
            f"{config.workload.value}"
        )
    with _competitors(config, run, device) as (competitors, explain):
        share = _Stolen()
        timings = measure(competitors, config.rounds, config.seconds)
        stolen = share.pct()
        memory = {each.implementation: each.memory() for each in competitors if each.memory}
        named = {each.implementation: each for each in competitors}
        timed = _Timed(timings, named, memory, device, time.perf_counter() - began, stolen)
        _print(config, timed)
        if on_peers := _not_timed(config, device):
            print(on_peers)
        explained = explain(timings)
    return [_record(each, config, run, timed, explained.get(each, {})) for each in timings]


@dataclass(frozen=True)
class _Timed:
    """What a run measured.

    Attributes:
        memory:     bytes that the competitors held at most, of those that tell
        stolen_pct: of the processors' time while it was measured, that a hypervisor gave to
                    others; None where it is not told
    """

    timings: dict[Implementation, Timing]
    competitors: dict[Implementation, Competitor]
    memory: dict[Implementation, int]
    device: torch.device
    wall_time_s: float
    stolen_pct: float | None

    @property
    def rates(self) -> dict[Implementation, float]:
        """±1 multiply-accumulates a second of each competitor that has such a number."""
        macs = {each: self.competitors[each].macs for each in self.timings}
        return {each: macs[each] / t.median_s for each, t in self.timings.items() if macs[each]}

    @property
    def roofline(self) -> float | None:
        """The rate that no popcount product exceeds; None where it was not measured."""
        return roofline.popcount_roofline(self.rates) if roofline.TRIPLES in self.rates else None

    @property
    def fastest_peer(self) -> Implementation | None:
        """The library that is fastest; None where none was timed."""
        libraries = [each for each in self.rates if each.is_library]
        return max(libraries, key=self.rates.__getitem__, default=None)

    def share(self, implementation: Implementation) -> float | None:
        """A competitor's rate over its roofline, known or measured; None where it has none."""
        top = self.competitors[implementation].roofline or self.roofline
        return self.rates[implementation] / top if top and implementation in self.rates else None


class _Stolen:
    """Processor time that a hypervisor gives to others, from here on."""

    def __init__(self) -> None:
        self.began, self.before = time.perf_counter(), machine.stolen_s()

    def pct(self) -> float | None:
        after = machine.stolen_s()
        if after is None or self.before is None:
            return None
        available = (psutil.cpu_count() or 1) * (time.perf_counter() - self.began)
        return 100 * (after - self.before) / available


@contextmanager
def _competitors(
    config: BenchConfig, run: Run, device: torch.device
) -> Iterator[tuple[list[Competitor], Explain]]:
    if config.workload is Workload.train_step:
        with step.competitors(config, run, device) as (entries, explain):
            yield entries, explain
    elif config.workload is Workload.gemm and config.device is Device.cuda:
        yield gemm_cuda.competitors(config), explain_nothing
    elif config.workload is Workload.gemm:
        with gemm.competitors(config) as entries:
            yield entries, explain_nothing
    else:
        with network.competitors(config) as (entries, explain):
            yield entries, explain


def _print(config: BenchConfig, timed: _Timed) -> None:
    rate = timed.rates
    stolen = (
        f", {timed.stolen_pct:.0f} % of whose time a hypervisor took" if timed.stolen_pct else ""
    )
    columns = ["competitor", "median ms", "fastest ms", "spread", "calls"]
    columns += ["MiB at most"] if timed.memory else []
    columns += ["GMAC/s", "of the roofline"] if rate else []
    peer, rows = timed.fastest_peer, []
    others = [YARDSTICK, *([peer] if peer else [])]
    for each, t in timed.timings.items():
        row = [timed.competitors[each].name, f"{1e3 * t.median_s:.2f}", f"{1e3 * t.minimum_s:.2f}",
               f"{100 * t.spread:.0f} %", str(t.count)]  # fmt: skip
        if timed.memory:
            row.append(f"{timed.memory[each] / 2**20:,.0f}" if each in timed.memory else "")
        if rate:
            share = timed.share(each)
            row.append(f"{rate[each] / 1e9:,.0f}" if each in rate else "")
            row.append(f"{100 * share:.1f} %" if share is not None else "")
        rows.append([*row, *(_times(each, other, timed) for other in others)])
    print_table(
        [*columns, *(f"times {other.name}" for other in others)],
        rows,
        title=f"{_title(config)}, on {timed.device}, {torch.get_num_threads()} threads{stolen}",
    )


def _not_timed(config: BenchConfig, device: torch.device) -> str:
    """Which libraries were asked for and not timed, and what to do; "" if none."""
    asked = config.kernel in (BenchKernel.peers, BenchKernel.all)
    if not asked or config.workload is Workload.train_step or device.type != "cpu":
        return ""
    missing = peers.absent()
    sentences = [f"not installed: {', '.join(missing)}: {peers.INSTALL}"] if missing else []
    if config.workload is Workload.gemm:
        for name, unit in peers.unfit(config.k).items():
            sentences.append(f"k={config.k}: {name} takes multiples of {unit}")
    elif not has_one_bit(config.binarization):
        sentences.append(f"{describe(config.binarization)}: other runtimes are given only one bit")
    return "\n".join(f"not timed: {each}" for each in sentences)


def _times(each: Implementation, other: Implementation, timed: _Timed) -> str:
    """How many times as fast as another: by rate where the work differs, "" if in kind."""
    rate = timed.rates
    if each.role is Role.roofline or (each in rate) is not (other in rate):
        return ""
    if each in rate:
        return f"{rate[each] / rate[other]:.2f}"
    return f"{timed.timings[other].median_s / timed.timings[each].median_s:.2f}"


def _title(config: BenchConfig) -> str:
    if config.workload is Workload.gemm:
        return f"product of ±1 matrices, M {config.m}, N {config.n}, K {config.k}"
    if config.workload is Workload.train_step:
        return (f"one training step: {config.dataset.name}, {config.arch.name}, batch "
                f"{config.trainer.batch_size}")  # fmt: skip
    b = config.binarization
    bits = "" if has_one_bit(b) else f", {describe(b)}"
    return (
        f"{config.arch.name} for {config.dataset.name}{bits}, {config.batch} "
        "images, pixels to labels"
    )


def _config(config: BenchConfig) -> dict[str, Any]:
    """What of the configuration the timing depends on: a bare product has no data, no network."""
    settings = computed(config)
    if config.workload is not Workload.gemm:
        return settings
    return {key: settings[key] for key in ("workload", "kernel", "m", "n", "k", "seed")}


def _record(
    each: Implementation, config: BenchConfig, run: Run, timed: "_Timed", explained: dict[str, Any]
) -> Record:
    timing, rate = timed.timings[each], timed.rates
    return Record(
        experiment=run.experiment,
        cell="",
        quantity=f"{config.workload.value}_time",
        value=1e3 * timing.median_s,
        unit="ms",
        seed=config.seed,
        device=timed.device.type,
        details={
            "role": each.role.value,
            "variant": each.variant,
            "remark": timed.competitors[each].remark,
            "minimum": 1e3 * timing.minimum_s,
            "spread": timing.spread,
            "count": timing.count,
            "macs": timed.competitors[each].macs,
            "gmac_per_s": rate[each] / 1e9 if each in rate else None,
            "share_of_limit": timed.share(each),
            "memory_bytes": timed.memory.get(each),
            "in_the_same_run": {other.key: 1e3 * t.median_s for other, t in timed.timings.items()},
            "threads": torch.get_num_threads(),
            "stolen_pct": timed.stolen_pct,
            **explained,
        },
        config=_config(config),
        command=run.command,
        wall_time_s=timed.wall_time_s,
        gpu=machine.gpu() if timed.device.type == "cuda" else None,
    )
