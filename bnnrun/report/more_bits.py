"""Test error against bits: networks alike in all else, beside what others published."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from bnnrun.architecture import ARCHS, bits_text, plan
from bnnrun.config import BinarizationConfig, Binarizer
from bnnrun.data.dataset import ImageSpec
from bnnrun.paper import DATASETS
from bnnrun.records import Record
from bnnrun.report.content import Cell, Figure, Panel, Series, Table
from bnnrun.report.experiments import BUDGET, DATA, flat
from bnnrun.report.pooling import NOT_RUN, Pool, by_budget, interval, interval_value, notes, pool
from bnnrun.report.published import PUBLISHED, SOURCES, Published
from bnnrun.report.summary import packed_bytes
from bnnrun.runtime.model import MAX_BITS
from bnnrun.settings import restore
from bnnrun.table import Column, Number, Parts, Value

FLOAT = 32
OPERANDS = ("weight", "activation")
BITS = {f"binarization.{operand}{what}" for operand in OPERANDS for what in ("s", "_bits")}
# In what the networks of one group may differ: their epochs they share.
VARIED = (BUDGET - {"trainer.epochs"}) | DATA | BITS


@dataclass(frozen=True)
class Bits:
    """Bits of weights and activations: of each layer where they differ, else one number."""

    weights: tuple[int, ...]
    activations: tuple[int, ...]

    def __str__(self) -> str:
        return " x ".join(map(bits_text, (self.weights, self.activations)))

    @property
    def all(self) -> tuple[int, ...]:
        return (*self.weights, *self.activations)

    @property
    def is_uniform(self) -> bool:
        """Whether all layers have as many bits, of weights and of activations."""
        return len(self.all) == len(OPERANDS)

    @property
    def value(self) -> Parts:
        """As text; for programs weights and activations."""
        return Parts(str(self), tuple(map(bits_text, (self.weights, self.activations))))

    @property
    def key(self) -> tuple[Any, ...]:
        """By which they are in order: rising on average, of weights first."""
        means = (sum(bits) / len(bits) for bits in (self.weights, self.activations))
        return (*means, self.weights, self.activations)


def bits_of(config: dict[str, Any]) -> Bits | None:
    """The bits that a record's network was trained with; None where signs were sampled, or the
    record does not tell.
    """
    settings = config.get("binarization", {})
    bits_by_operand = []
    for operand in OPERANDS:
        binarizer, bits = settings.get(f"{operand}s"), settings.get(f"{operand}_bits", 1)
        if binarizer not in (Binarizer.sign.value, Binarizer.none.value):
            return None
        each = tuple(bits) if isinstance(bits, list) else (bits,)
        real = binarizer == Binarizer.none.value
        bits_by_operand.append((FLOAT,) if real else each[:1] if len(set(each)) == 1 else each)
    return Bits(*bits_by_operand)


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
    packed = [r for r in records if r.quantity == "packed_test_error"]
    all_groups = groups(records)
    rows = [_row(bits, each, specs, packed) for group in all_groups for bits, each in group]
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
        ),
        rows=(*rows, *map(_published_row, others)),
        notes=(
            "Networks alike in all but their bits. k bits are 2^k levels from -1 to 1, evenly "
            "apart (docs/more_bits.md); 32 are float32. Bytes are of the weights alone, packed or "
            "float32; times are of `bnnrun eval` of the packed network, the latest.",
            *(f"{by}, published: {SOURCES[by]}." for by in dict.fromkeys(o.by for o in others)),
        ),
    )


def _row(
    bits: Bits, each: Pool, specs: dict[str, ImageSpec], packed: list[Record]
) -> tuple[Cell, ...]:
    timed = _latest_of(each, packed)
    time: Value = Parts(NOT_RUN if max(bits.all) <= MAX_BITS else "not packed", ())
    if timed is not None:
        ms = 1e6 / timed.details["images_per_s"]
        time = Number(ms, "{:,.0f}" if ms >= 100 else "{:.1f}")
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
        Cell(time, records=(timed.name,) if timed else ()),
    )  # fmt: skip


def _published_row(one: Published) -> tuple[Cell, ...]:
    error = f"{one.low:.2f}" if one.low == one.high else f"{one.low:.1f} to {one.high:.1f}"
    bits = Bits((one.weight_bits,), (one.activation_bits,))
    return (
        Cell(one.dataset),
        Cell(f"{one.network}, {one.by}, published"),
        Cell(bits.value),
        Cell(Parts(error, ((one.low + one.high) / 2,))),
        *(Cell("") for _ in range(5)),
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


def _latest_of(each: Pool, packed: list[Record]) -> Record | None:
    """The latest evaluation of a file that was packed from one of these runs."""
    runs = {_provenance(run) for run in each.records}
    evaluations = [r for r in packed if r.details["kernel"] == "xnor" and _packed_from(r) in runs]
    return evaluations[-1] if evaluations else None


def _provenance(run: Record) -> tuple[str, ...]:
    """What a packed file tells of its run, as text."""
    errors = (run.value, run.details.get("valid_error_pct"))
    error_texts = ("" if error is None else f"{error:.4f}" for error in errors)
    return (str(run.data.get("name")), str(run.seed), str(run.details.get("epoch")), *error_texts)


def _packed_from(r: Record) -> tuple[str, ...]:
    names = ("dataset", "seed", "epoch", "test_error_pct", "valid_error_pct")
    return tuple(str(r.details["trained"].get(name)) for name in names)


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
