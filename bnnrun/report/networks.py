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
from bnnrun.report.machines import MACHINE, where
from bnnrun.report.pooling import NOT_RUN, data_notes, record_notes
from bnnrun.report.summary import arithmetic_mj, dram_mj, packed_bytes, words
from bnnrun.runtime.file import NAME
from bnnrun.table import Column, Number, Parts, Value

CACHES = {"8K": 2**13, "32K": 2**15, "1M": 2**20}  # bytes of Table 3's memories but DRAM


def table2() -> Table:
    return Table(
        name="table2",
        title="Table 2: energy of one operation at 45 nm, pJ",
        columns=(
            Column("operation", "bits type"),
            Column("multiply", "multiply_pj"),
            Column("add", "add_pj"),
        ),
        rows=tuple(
            (
                Cell(Parts(name, tuple(name.split("-bit ")))),
                Cell(Number(multiply, "{:g}")),
                Cell(Number(add, "{:g}")),
            )
            for name, (multiply, add) in ENERGY_OPERATION_PJ.items()
        ),
        notes=("As the paper prints it, from Horowitz (2014); nothing is measured here.",),
    )


def table3() -> Table:
    return Table(
        name="table3",
        title="Table 3: energy of one access to 64 bits at 45 nm, pJ",
        columns=(Column("memory", "memory size_bytes"), Column("energy", "low_pj high_pj")),
        rows=tuple(
            (
                Cell(Parts(name, ("cache" if name in CACHES else name, CACHES.get(name)))),
                Cell(_range(low, high, "{:g}" if low == high else "{:,.0f}")),
            )
            for name, (low, high) in ENERGY_ACCESS_PJ.items()
        ),
        notes=("As the paper prints it, from Horowitz (2014); nothing is measured here.",),
    )


def _range(low: float, high: float, form: str) -> Parts:
    """'1,300 to 2,600', or the one number that both are."""
    ends = (low, high) if low != high else (low,)
    return Parts(" to ".join(form.format(end) for end in ends), (low, high))


def energy(experiments: list[Experiment]) -> Table:
    """What Tables 2 and 3 imply for each network of Table 1: float32 against binary."""
    rows: list[tuple[Cell, ...]] = []
    for network, layers in _networks(experiments):
        rows += _energy_of(network, layers)
    return Table(
        name="energy",
        title="Memory, accesses and energy an image, by Tables 2 and 3",
        columns=(
            Column("network", "dataset arch units"),
            Column("weights"),
            Column("", "quantity unit"),
            Column("float32", "float32_low float32_high"),
            Column("binary", "binary_low binary_high"),
            Column("float32 over binary"),
        ),
        rows=tuple(rows),
        notes=(
            "Computed, not measured: each weight is read once from DRAM, 64 bits an access. Table "
            "2 has no XNOR and no population count, so the energy of binary arithmetic cannot be "
            "computed from it, and stays empty.",
            f"The paper says memory and accesses are {MEMORY_SMALLER.text} times fewer. Bytes in "
            "a packed file are a little more: rows are padded to 32-bit words.",
        ),
    )


def _networks(experiments: list[Experiment]) -> list[tuple[Parts, list[Layer]]]:
    """The different networks of Table 1's cells, named by the cells that have them."""
    shapes: dict[tuple[Layer, ...], list[str]] = {}
    for experiment in experiments:
        if experiment.cell and experiment.config.binarization.weights.value != "none":
            layers = tuple(plan(experiment.config.arch, describe(experiment.config.dataset)))
            key = tuple(Layer(**{**vars(layer), "dropout": 0.0}) for layer in layers)
            shapes.setdefault(key, []).append(experiment.cell)
    named = []
    for layers, cells in shapes.items():
        data, first = sorted(cells)[0].split(".")[1], layers[0]
        network = "ConvNet" if first.is_conv else f"MLP, {first.outputs} units"
        form = ("convnet", None) if first.is_conv else ("mlp", first.outputs)
        text = f"{DATASETS.get(data, data)}, {network}"
        named.append((Parts(text, (data, *form)), list(layers)))
    return sorted(named, key=lambda pair: pair[0].text)


def _energy_of(network: Parts, layers: list[Layer]) -> list[tuple[Cell, ...]]:
    weights, macs = sum(layer.weights for layer in layers), sum(layer.macs for layer in layers)
    packed = sum(map(packed_bytes, layers))
    float32, bits = words(weights, 32), words(weights, 1)
    arithmetic = arithmetic_mj(macs)

    def row(what: Parts, ours: Value, binary: Value, times: float | None) -> tuple[Cell, ...]:
        ratio = "" if times is None else Number(times, "{:.1f}x")
        return tuple(map(Cell, (network, Number(weights), what, ours, binary, ratio)))

    return [
        row(Parts("bytes of weights", ("weights", "bytes")), _exact(4 * weights), _exact(packed),
            4 * weights / packed),
        row(Parts("64-bit accesses for them", ("accesses", "words")), _exact(float32),
            _exact(bits), float32 / bits),
        row(Parts("DRAM, mJ", ("DRAM", "mJ")), dram_mj(float32), dram_mj(bits), float32 / bits),
        row(Parts("multiply and add, mJ", ("multiply and add", "mJ")),
            _range(arithmetic.value, arithmetic.value, "{:.3g}"), "", None),
    ]  # fmt: skip


def _exact(count: int) -> Parts:
    return _range(count, count, "{:,}")


def packed(records: list[Record]) -> Table:
    """A row for each packed file that was evaluated, with a kernel on a machine."""
    evaluations = [r for r in records if r.quantity == "packed_test_error"]
    return Table(
        name="packed",
        title="Packed networks",
        columns=(
            Column("data", "dataset"),
            Column("test error %", "error_pct", notes="notes"),
            Column("trained network's %", "trained_error_pct"),
            Column("epoch"),
            Column("seed"),
            Column("bytes"),
            Column("file"),
            Column("sha256"),
            Column("compared with the trained network", "compared_bits compared_scores"),
            Column("images/s", "images_per_s"),
            Column("kernel", "kernel first_layer"),
            Column("machine", MACHINE),
        ),
        rows=tuple(map(_packed_row, sorted(evaluations, key=_by_data_and_epoch))),
        notes=(
            "A packed network's test error is the trained one's own, bit for bit. A file named is "
            "in models/, where SHA256SUMS has its whole checksum; `bnnrun eval model=FILE "
            "dataset=DATA` gives its error again. Of images a second the medians of a benchmark "
            "stand under Times.",
        ),
    )  # fmt: skip


def _packed_row(r: Record) -> tuple[Cell, ...]:
    trained = r.details["trained"]
    sha256, kernel, first = (r.details[key] for key in ("sha256", "kernel", "first"))
    return (
        Cell(r.data["name"]),
        Cell(Number(r.value, "{:.2f}"), f"packed.{r.data['name']}.{sha256[:8]}",
             notes=(*data_notes(r), *record_notes(r)), records=(r.name,)),
        Cell(Number(float(trained["test_error_pct"]), "{:.2f}")),
        Cell(str(trained.get("epoch", ""))),
        Cell(str(trained.get("seed", ""))),
        Cell(Number(r.details["packed_bytes"])),
        Cell(file_name(r)),
        Cell(Parts(sha256[:12], (sha256,))),
        Cell(compared(r)),
        Cell(Number(r.details["images_per_s"], "{:,.0f}")),
        Cell(Parts(f"{kernel}, first layer by {first}", (kernel, first))),
        Cell(where(r)),
    )  # fmt: skip


def compared(r: Record) -> Parts:
    """How many bits and scores of a packed network were found to be the trained one's."""
    verified = r.details.get("verified")
    if verified is None:
        return Parts("not compared", ())
    bits, scores = verified["hidden_bits"], verified["scores"]
    return Parts(f"{bits:,} bits, {scores:,} scores: equal", (bits, scores))


def file_name(r: Record) -> str:
    """Of a packed file; "" where it has none of its own."""
    name = str(r.details.get("file", ""))
    return "" if name == NAME else name


def _by_data_and_epoch(r: Record) -> tuple[str, int, str, str]:
    return r.data["name"], int(r.details["trained"].get("epoch", 0)), r.created, r.name


def filters(records: list[Record]) -> Table:
    """Unique 3x3 filters of each layer and on average, beside chance and the paper's 42 %."""
    with_filters = [r for r in records if r.quantity == "unique_filters"]
    rows = [row for r in with_filters for row in _filter_rows(r)]
    if not rows:
        absent = Cell("", "filters.cifar10", _unique_of_paper(), NOT_RUN)
        rows = [(Cell("cifar10"), Cell(""), Cell("mean, conv2 to last"), absent, *[Cell("")] * 3)]
    return Table(
        name="filters",
        title="Unique filters",
        columns=(
            Column("data", "dataset"),
            Column("epoch"),
            Column("layer"),
            Column("unique 3x3 filters %", "unique_pct", paper="paper_unique_pct",
                   verdict="verdict", notes="notes"),
            Column("by chance %", "by_chance_pct"),
            Column("work saved %", "saved_pct"),
            Column("times less"),
        ),
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


def _unique_of_paper() -> Parts:
    return Parts(UNIQUE_FILTERS.text, (UNIQUE_FILTERS.value,))


def _filter_rows(r: Record) -> list[tuple[Cell, ...]]:
    trained = r.details.get("trained", {})
    data, epoch = str(trained.get("dataset", "")), str(trained.get("epoch", ""))
    layers = {
        name: (layer["unique_pct"], layer["by_chance_pct"])
        for name, layer in r.details.get("layers", {}).items()
    }
    layers["mean, conv2 to last"] = (r.value, r.details["by_chance_pct"])
    rows: list[tuple[Cell, ...]] = []
    for name, (share, chance) in layers.items():
        mean = name.startswith("mean")
        printed = _unique_of_paper() if mean and data == "cifar10" else ""
        place = "" if mean else f".{name}"
        rows.append(
            (
                Cell(data), Cell(epoch), Cell(name),
                Cell(Number(share, "{:.1f}"),
                     f"filters.{data}.{r.details['sha256'][:8]}{place}", printed,
                     notes=tuple(record_notes(r)) if mean else (), records=(r.name,)),
                Cell(Number(chance, "{:.1f}")), Cell(Number(100 - share, "{:.1f}")),
                Cell(Number(100 / share, "{:.2f}")),
            )
        )  # fmt: skip
    return rows
