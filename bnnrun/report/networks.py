"""What networks cost by the paper's Tables 2 and 3, their packed files, and their filters."""

from bnnrun.architecture import Layer, plan
from bnnrun.data import describe
from bnnrun.paper import (
    DATASETS,
    ENERGY_ACCESS_PJ,
    ENERGY_OPERATION_PJ,
    MEMORY_SMALLER,
    UNIQUE_FILTERS,
    UNIQUE_FILTERS_FEWER,
    UNIQUE_FILTERS_SAVED,
)
from bnnrun.records import Record
from bnnrun.report.content import Cell, Table
from bnnrun.report.experiments import Experiment
from bnnrun.report.pooling import NOT_RUN, data_notes, record_notes
from bnnrun.report.speed import machine
from bnnrun.report.summary import energy_rows, layer_rows
from bnnrun.runtime.file import NAME


def table2() -> Table:
    return Table(
        name="table2",
        title="Table 2: energy of one operation at 45 nm, pJ",
        columns=("operation", "multiply", "add"),
        rows=tuple(
            (Cell(name), Cell(f"{multiply:g}"), Cell(f"{add:g}"))
            for name, (multiply, add) in ENERGY_OPERATION_PJ.items()
        ),
        notes=("As the paper prints it, from Horowitz (2014); nothing is measured here.",),
    )


def table3() -> Table:
    return Table(
        name="table3",
        title="Table 3: energy of one access to 64 bits at 45 nm, pJ",
        columns=("memory", "energy"),
        rows=tuple(
            (Cell(name), Cell(f"{low:g}" if low == high else f"{low:,.0f} to {high:,.0f}"))
            for name, (low, high) in ENERGY_ACCESS_PJ.items()
        ),
        notes=("As the paper prints it, from Horowitz (2014); nothing is measured here.",),
    )


def energy(experiments: list[Experiment]) -> Table:
    """What Tables 2 and 3 imply for each network of Table 1: float32 against binary."""
    rows: list[tuple[Cell, ...]] = []
    for name, layers in _networks(experiments).items():
        rows += _energy_of(name, layers)
    return Table(
        name="energy",
        title="Memory, accesses and energy an image, by Tables 2 and 3",
        columns=("network", "weights", "", "float32", "binary", "float32 over binary"),
        rows=tuple(rows),
        notes=(
            "Computed, not measured: each weight is read once from DRAM, 64 bits an access. Table "
            "2 has no XNOR and no population count, so the energy of binary arithmetic cannot be "
            "computed from it, and stays empty.",
            f"The paper says memory and accesses are {MEMORY_SMALLER.text} times fewer. Bytes in "
            "a packed file are a little more: rows are padded to 32-bit words.",
        ),
    )


def _networks(experiments: list[Experiment]) -> dict[str, list[Layer]]:
    """The different networks of Table 1's cells, by the cells that have them."""
    shapes: dict[tuple[Layer, ...], list[str]] = {}
    for experiment in experiments:
        if experiment.cell and experiment.config.binarization.weights.value != "none":
            layers = tuple(plan(experiment.config.arch, describe(experiment.config.dataset)))
            key = tuple(Layer(**{**vars(layer), "dropout": 0.0}) for layer in layers)
            shapes.setdefault(key, []).append(experiment.cell)
    named = {}
    for layers, cells in shapes.items():
        data = sorted(cells)[0].split(".")[1]
        first = layers[0]
        of = "ConvNet" if first.is_conv else f"MLP, {first.outputs} units"
        named[f"{DATASETS.get(data, data)}, {of}"] = list(layers)
    return dict(sorted(named.items()))


def _energy_of(name: str, layers: list[Layer]) -> list[tuple[Cell, ...]]:
    weights, _, _, packed, real = layer_rows(layers, binary=True)[-1][2:7]
    float32, bits, arithmetic = energy_rows(layers)
    times = _number(real) / _number(packed)

    def row(what: str, ours: str, binary: str, ratio: str) -> tuple[Cell, ...]:
        return tuple(map(Cell, (name, weights, what, ours, binary, ratio)))

    return [
        row("bytes of weights", real, packed, f"{times:.1f}x"),
        row("64-bit accesses for them", float32[1], bits[1],
            f"{_number(float32[1]) / _number(bits[1]):.1f}x"),
        row("DRAM, mJ", float32[2], bits[2], f"{_number(float32[1]) / _number(bits[1]):.1f}x"),
        row("multiply and add, mJ", arithmetic[2], "", ""),
    ]  # fmt: skip


def _number(text: str) -> float:
    return float(text.replace(",", ""))


def packed(records: list[Record]) -> Table:
    """A row for each packed file that was evaluated, its latest evaluation on a machine."""
    latest = {
        (r.details["sha256"], r.details["kernel"], r.details["first"], machine(r)): r
        for r in records
        if r.quantity == "packed_test_error"
    }
    return Table(
        name="packed",
        title="Packed networks",
        columns=("data", "test error %", "trained network's %", "epoch", "seed", "bytes", "file",
                 "sha256", "compared with the trained network", "images/s", "kernel", "machine"),
        rows=tuple(_packed_row(r) for _, r in sorted(latest.items(), key=_by_data_and_epoch)),
        notes=(
            "A packed network's test error is the trained one's own, bit for bit. A file named is "
            "in models/, where SHA256SUMS has its whole checksum; `bnnrun eval model=FILE "
            "dataset=DATA` gives its error again. Of images a second the medians of a benchmark "
            "stand under Times.",
        ),
    )  # fmt: skip


def _packed_row(r: Record) -> tuple[Cell, ...]:
    trained, verified = r.details["trained"], r.details.get("verified")
    compared = "not compared"
    if verified is not None:
        compared = f"{verified['hidden_bits']:,} bits, {verified['scores']:,} scores: equal"
    return (
        Cell(r.data["name"]),
        Cell(f"{r.value:.2f}", f"packed.{r.data['name']}.{r.details['sha256'][:8]}",
             notes=(*data_notes(r), *record_notes(r)), records=(r.name,)),
        Cell(f"{float(trained['test_error_pct']):.2f}"),
        Cell(str(trained.get("epoch", ""))),
        Cell(str(trained.get("seed", ""))),
        Cell(f"{r.details['packed_bytes']:,}"),
        Cell("" if r.details.get("file") == NAME else r.details.get("file", "")),
        Cell(r.details["sha256"][:12]),
        Cell(compared),
        Cell(f"{r.details['images_per_s']:,.0f}"),
        Cell(f"{r.details['kernel']}, first layer by {r.details['first']}"),
        Cell(machine(r)),
    )  # fmt: skip


def _by_data_and_epoch(item: tuple[tuple[str, ...], Record]) -> tuple[str, int, str, str]:
    r = item[1]
    return r.data["name"], int(r.details["trained"].get("epoch", 0)), r.created, r.name


def filters(records: list[Record]) -> Table:
    """Unique 3x3 filters of each layer and on average, beside chance and the paper's 42 %."""
    latest = {r.details["sha256"]: r for r in records if r.quantity == "unique_filters"}
    rows: list[tuple[Cell, ...]] = []
    for r in sorted(latest.values(), key=lambda r: (r.created, r.name)):
        rows += _filter_rows(r)
    if not rows:
        absent = Cell("", "filters.cifar10", UNIQUE_FILTERS.text, NOT_RUN)
        rows = [(Cell("cifar10"), Cell(""), Cell("mean, conv2 to last"), absent, *[Cell("")] * 3)]
    return Table(
        name="filters",
        title="Unique filters",
        columns=("data", "epoch", "layer", "unique 3x3 filters %", "by chance %",
                 "work saved %", "times less"),
        rows=tuple(rows),
        notes=(
            "Different 3x3 filters of an input map, a filter and its negative being one, over the "
            "number of output maps; by chance is the same of random weights.",
            f"The paper prints {UNIQUE_FILTERS.text} % on average for CIFAR-10, without a "
            f"definition, and concludes {UNIQUE_FILTERS_FEWER.text} times fewer operations and "
            f"{UNIQUE_FILTERS_SAVED.text} % of the time saved; its numbers do not follow from each "
            "other (1 / 0.42 = 2.4).",
        ),
    )  # fmt: skip


def _filter_rows(r: Record) -> list[tuple[Cell, ...]]:
    trained = r.details.get("trained", {})
    of, epoch = str(trained.get("dataset", "")), str(trained.get("epoch", ""))
    layers = {
        name: (layer["unique_pct"], layer["by_chance_pct"])
        for name, layer in r.details.get("layers", {}).items()
    }
    layers["mean, conv2 to last"] = (r.value, r.details["by_chance_pct"])
    rows: list[tuple[Cell, ...]] = []
    for name, (share, chance) in layers.items():
        mean = name.startswith("mean")
        printed = UNIQUE_FILTERS.text if mean and of == "cifar10" else ""
        place = "" if mean else f".{name}"
        rows.append(
            (
                Cell(of), Cell(epoch), Cell(name),
                Cell(f"{share:.1f}", f"filters.{of}.{r.details['sha256'][:8]}{place}", printed,
                     notes=tuple(record_notes(r)) if mean else (), records=(r.name,)),
                Cell(f"{chance:.1f}"), Cell(f"{100 - share:.1f}"), Cell(f"{100 / share:.2f}"),
            )
        )  # fmt: skip
    return rows
