"""Test error against bits: networks alike in all else, beside what others published."""

import json
from collections.abc import Iterable
from typing import Any

from bnnrun.architecture import ARCHS, plan
from bnnrun.config import BinarizationConfig, Binarizer
from bnnrun.data.dataset import ImageSpec
from bnnrun.paper import DATASETS
from bnnrun.records import Record
from bnnrun.report.bits import FLOAT, OPERANDS, Bits, bits_of
from bnnrun.report.content import Cell, Figure, Panel, Series, Table
from bnnrun.report.experiments import BUDGET, DATA, flat
from bnnrun.report.machines import MACHINE, machine, where
from bnnrun.report.pooling import NOT_RUN, Pool, by_budget, interval, interval_value, notes, pool
from bnnrun.report.published import PUBLISHED, SOURCES, Published
from bnnrun.report.summary import packed_bytes
from bnnrun.report.workload import shape
from bnnrun.roles import YARDSTICK, Role
from bnnrun.runtime.model import MAX_BITS
from bnnrun.settings import restore
from bnnrun.table import Column, Number, Parts, Value

BITS_SETTINGS = {f"binarization.{operand}{what}" for operand in OPERANDS for what in ("s", "_bits")}
# In what the networks of one group may differ: their epochs they share.
VARIED = (BUDGET - {"trainer.epochs"}) | DATA | BITS_SETTINGS


Group = list[tuple[Bits, Pool]]


def groups(records: Iterable[Record]) -> list[Group]:
    """Pools of test errors alike in all but their bits, where some have 2 to 8; fewest bits first.

    Of each number of bits the pool that leads stands for it. A run from weights of its own is left
    out: it has more epochs than it tells.
    """
    pools: dict[str, dict[Bits, Pool]] = {}
    for each in by_budget(pool(r for r in records if r.quantity == "test_error")):
        config = each.first.config
        bits = bits_of(config)
        if bits is not None and "arch" in config and not config.get("init"):
            pools.setdefault(_all_else(each), {}).setdefault(bits, each)
    return [
        sorted(group.items(), key=lambda pair: pair[0].key)
        for _, group in sorted(pools.items())
        if any(1 < each < FLOAT for bits in group for each in bits.all)
    ]


def _all_else(each: Pool) -> str:
    """What the networks of one group have in common."""
    config = {key: value for key, value in flat(each.first.config) if key not in VARIED}
    return json.dumps([each.dataset, config], sort_keys=True)


def shown(records: Iterable[Record]) -> list[Pool]:
    """The pools that the table shows."""
    return [each for group in groups(records) for _, each in group]


# ---- the table -------------------------------------------------------------------------------


def table(records: list[Record], specs: dict[str, ImageSpec]) -> Table:
    """A row for each number of bits of each network, and those that others published below.

    Args:
        records: oldest first
        specs:   of the data sets whose networks' bytes are to be computed, by their names
    """
    all_groups = groups(records)
    rows = [
        _row(bits, each, specs, times.get(bits))
        for group in all_groups
        for times in [_times(group[0][1], records)]
        for bits, each in group
    ]
    data = {each.dataset for group in all_groups for _, each in group}
    others = [one for one in PUBLISHED if one.dataset in data]
    return Table(
        name="more_bits",
        title="More bits",
        columns=(
            Column("data", "dataset"),
            Column("network"),
            Column("bits, W x A", "weight_bits activation_bits"),
            Column("test error %", "error_pct deviation_pct", notes="notes"),
            Column("n"),
            Column("95 % interval", "low_pct high_pct"),
            Column("epochs"),
            Column("bytes of weights", "weight_bytes"),
            Column("ms for 1,000 images", "ms_per_1000_images"),
            Column("times torch float32", "times_torch_float32"),
            Column("timed on", MACHINE),
        ),
        rows=(*rows, *map(_published_row, others)),
        notes=(
            "Networks alike in all but their bits. k bits are 2^k levels from -1 to 1, evenly "
            "apart (docs/more_bits.md); 32 are float32. Bytes are of the weights alone, packed or "
            "float32; times are those of `bnnrun bench` of this shape, all of one machine.",
            *(f"{by}, published: {SOURCES[by]}." for by in dict.fromkeys(o.by for o in others)),
        ),
    )


def _row(
    bits: Bits, each: Pool, specs: dict[str, ImageSpec], timed: Record | None
) -> tuple[Cell, ...]:
    absent = NOT_RUN if max(bits.all) <= MAX_BITS else "not packed"
    time: tuple[Value, ...] = (Parts(absent, ()), "", "")
    if timed is not None:
        ms = 1000 * timed.value / timed.config["batch"]
        other = timed.details["in_the_same_run"].get(YARDSTICK.key)
        times = Number(other / timed.value, "{:.1f}") if other else ""
        time = Number(ms, "{:,.0f}" if ms >= 100 else "{:.1f}"), times, where(timed)
    names = (timed.name,) if timed else ()
    return (
        Cell(each.dataset),
        Cell(_network(each.first.config)),
        Cell(bits.value),
        Cell(each.measured, f"more_bits.{each.dataset}.{each.first.checksum[:8]}",
             notes=notes(each), records=each.names),
        Cell(Number(each.n)),
        Cell(interval_value(each)),
        Cell(Number(each.epochs) if each.epochs else ""),
        Cell(_bytes(each.first.config, specs.get(each.dataset))),
        *(Cell(value, records=names) for value in time),
    )  # fmt: skip


def _published_row(one: Published) -> tuple[Cell, ...]:
    error = f"{one.low:.2f}" if one.low == one.high else f"{one.low:.1f} to {one.high:.1f}"
    bits = Bits((one.weight_bits,), (one.activation_bits,))
    return (
        Cell(one.dataset),
        Cell(f"{one.network}, {one.by}, published"),
        Cell(bits.value),
        Cell(Parts(error, ((one.low + one.high) / 2,))),
        *(Cell("") for _ in range(7)),
    )


def _network(config: dict[str, Any]) -> str:
    """'mlp 3 x 1024' or 'convnet 128-128-256'."""
    arch = config["arch"]
    if "depth" in arch:
        return f"{arch.get('name', '')} {arch['depth']} x {arch.get('width', '')}"
    return f"{arch.get('name', '')} {'-'.join(map(str, arch.get('channels') or ()))}".strip()


def _bytes(config: dict[str, Any], spec: ImageSpec | None) -> Value:
    """Of all weights; "" where the images are not known, or the network is of no known kind."""
    arch_type = ARCHS.get(config["arch"].get("name", ""))
    if spec is None or arch_type is None:
        return ""
    binarization = restore(BinarizationConfig, config["binarization"])
    layers = plan(restore(arch_type, config["arch"]), spec, binarization)
    binary = binarization.weights is not Binarizer.none
    return Number(sum(packed_bytes(layer, binary) for layer in layers))


def _times(like: Pool, records: list[Record]) -> dict[Bits, Record]:
    """Times of packed networks of a shape, by their bits: the newest, of the faster first layer.

    All are of one machine: of that with most numbers of bits, the latest if several have as many.

    Args:
        like:    of a network of this shape
        records: oldest first
    """
    by_machine: dict[str, dict[Bits, dict[Any, Record]]] = {}
    for record in records:
        if (
            record.quantity in ("mlp_time", "convnet_time")
            and record.details["role"] == Role.ours.value
            and record.config["dataset"]["name"] == like.dataset
            and shape(record.config) == shape(like.first.config)
            and (bits := bits_of(record.config)) is not None
        ):
            # Taken out and put back: the machine measured last comes last.
            timed = by_machine.pop(machine(record), {})
            by_machine[machine(record)] = timed
            key = record.details["variant"], record.config["batch"]
            timed.setdefault(bits, {})[key] = record
    most = max(reversed(by_machine.values()), key=len, default={})
    return {
        bits: min(variants.values(), key=lambda r: r.value / r.config["batch"])
        for bits, variants in most.items()
    }


# ---- the figure ------------------------------------------------------------------------------


def figures(records: list[Record]) -> list[Figure]:
    """Test error against bits, a panel a network; those with as many bits in all their layers."""
    uniform = ([pair for pair in group if pair[0].is_uniform] for group in groups(records))
    panels = tuple(_panel(group) for group in uniform if group)
    if not panels:
        return []
    caption = (
        "Networks alike in all but their bits, those of weights x those of activations; 32 are "
        "float32. Bars are 95 % intervals. What others published stands in the table More bits."
    )
    return [Figure("more_bits", "Test error against bits", caption, panels)]


def _panel(group: Group) -> Panel:
    first = group[0][1]
    data = DATASETS.get(first.dataset, first.dataset)
    network = f"{data}, {_network(first.first.config)}"
    intervals = [interval(each) or (each.mean, each.mean) for _, each in group]
    return Panel(
        title=network,
        x_label="bits of weights x bits of activations",
        y_label="test error, %",
        series=(
            Series(
                label=f"{network}, {first.epochs} epochs",
                x=tuple(map(float, range(len(group)))),
                y=tuple(each.mean for _, each in group),
                low=tuple(low for low, _ in intervals),
                high=tuple(high for _, high in intervals),
                records=tuple(name for _, each in group for name in each.names),
            ),
        ),
        names=tuple(str(bits) for bits, _ in group),
        x_name="bits",
        y_name="error_pct",
    )
