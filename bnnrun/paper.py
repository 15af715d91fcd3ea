"""What the paper prints, in its own units.

Numbers stand in both versions (arXiv:1602.02830v3 and NIPS 2016) unless they say otherwise. Figure
numbers are arXiv's; NIPS has no Figure 2, and its Figure 2 is arXiv's Figure 3.
"""

from dataclasses import dataclass

ARXIV, NIPS, BOTH = "arXiv v3", "NIPS 2016", "arXiv v3 and NIPS 2016"


@dataclass(frozen=True)
class Number:
    """One printed number.

    Attributes:
        place:     where it is printed: "Table 1", "Figure 3", "text"
        row:       as in `TABLE1_ROWS`, or the name of a bar or claim
        column:    the data set, the workload, the measure
        value:     in `unit`
        deviation: after ±, None where the paper prints none
        version:   of the paper that prints it
        read_off:  measured on a plot, not printed in digits
    """

    place: str
    row: str
    column: str
    value: float
    unit: str = "%"
    deviation: float | None = None
    version: str = BOTH
    read_off: bool = False
    digits: int = 2

    @property
    def text(self) -> str:
        """As the paper prints it: "0.96", "1.29 ± 0.08", "~0.28" where read off a plot."""
        shown = f"{'~' if self.read_off else ''}{self.value:.{self.digits}f}"
        return shown if self.deviation is None else f"{shown} ± {self.deviation:.{self.digits}f}"


@dataclass(frozen=True)
class Row:
    """A row of Table 1: the key of its cells, its label, and the group that it stands in."""

    key: str
    label: str
    group: str


# ---- Table 1: test error, % ------------------------------------------------------------------

DATASETS = {"mnist": "MNIST", "svhn": "SVHN", "cifar10": "CIFAR-10"}

TABLE1_ROWS = (
    Row("torch7", "BNN (Torch7)", "binary activations and weights, training and test"),
    Row("theano", "BNN (Theano)", "binary activations and weights, training and test"),
    Row(
        "committee",
        "Committee Machines' Array (Baldassi et al., 2015)",
        "binary activations and weights, training and test",
    ),
    Row("binaryconnect", "BinaryConnect", "binary weights, training and test"),
    Row("ebp", "EBP (Cheng et al., 2015)", "binary activations and weights, test only"),
    Row(
        "bitwise",
        "Bitwise DNNs (Kim & Smaragdis, 2016)",
        "binary activations and weights, test only",
    ),
    Row("hwang", "Hwang & Sung (2014)", "ternary weights, binary activations, test"),
    Row("float", "No regularization", "no binarization"),
    Row("gated", "Gated pooling (Lee et al., 2015)", "no binarization"),
    Row("maxout", "Maxout (Goodfellow et al., 2013)", "no binarization"),
    Row("nin", "Network in Network (Lin et al., 2013)", "no binarization"),
)


def _table1(row: str, column: str, value: float, **more: object) -> Number:
    return Number("Table 1", row, column, value, **more)  # type: ignore[arg-type]


TABLE1 = {
    (number.row, number.column): number
    for number in (
        _table1("torch7", "mnist", 1.40),
        _table1("torch7", "svhn", 2.53),
        _table1("torch7", "cifar10", 10.15),
        _table1("theano", "mnist", 0.96),
        _table1("theano", "svhn", 2.80),
        _table1("theano", "cifar10", 11.40),
        _table1("committee", "mnist", 1.35),
        _table1("binaryconnect", "mnist", 1.29, deviation=0.08),
        _table1("binaryconnect", "svhn", 2.30),
        _table1("binaryconnect", "cifar10", 9.90),
        _table1("ebp", "mnist", 2.2, deviation=0.1, digits=1),
        _table1("bitwise", "mnist", 1.33),
        _table1("hwang", "mnist", 1.45),
        _table1("float", "mnist", 1.3, deviation=0.2, digits=1),
        _table1("float", "svhn", 2.44),
        _table1("float", "cifar10", 10.94),
        _table1("gated", "svhn", 1.69),
        _table1("gated", "cifar10", 7.62),
        _table1("maxout", "mnist", 0.94, version=ARXIV),
        _table1("maxout", "svhn", 2.47, version=ARXIV),
        _table1("maxout", "cifar10", 11.68, version=ARXIV),
        _table1("nin", "svhn", 2.35, version=ARXIV),
        _table1("nin", "cifar10", 10.41, version=ARXIV),
    )
}

# Epochs of each data set's runs; Torch7's on MNIST are not printed and taken as Theano's.
EPOCHS = {"mnist": 1000, "svhn": 200, "cifar10": 500}
# Images that the authors trained and tested on, validation images apart.
TRAIN_IMAGES = {"mnist": 50_000, "svhn": 598_388, "cifar10": 45_000}
TEST_IMAGES = {"mnist": 10_000, "svhn": 26_032, "cifar10": 10_000}

# ---- Tables 2 and 3: energy at 45 nm, pJ, from Horowitz (2014) -------------------------------

# Table 2: energy of one operation: (multiply, add).
ENERGY_OPERATION_PJ = {
    "8-bit integer": (0.2, 0.03),
    "32-bit integer": (3.1, 0.1),
    "16-bit float": (1.1, 0.4),
    "32-bit float": (3.7, 0.9),
}

# Table 3: energy of one access to 64 bits, by the memory's size: (from, to).
ENERGY_ACCESS_PJ = {
    "8K": (10.0, 10.0),
    "32K": (20.0, 20.0),
    "1M": (100.0, 100.0),
    "DRAM": (1300.0, 2600.0),
}

# ---- Figure 1: CIFAR-10 training curves, read off the plot to about ±0.2 points --------------


@dataclass(frozen=True)
class Curve:
    """A curve of Figure 1; `low` and `high` hold its noise, `points` the middle of both.

    Attributes:
        key:    "float", "torch7" or "theano", the rows of Table 1
        measure: "valid_error", % of validation images, or "train_cost", the squared hinge loss on
                a scale of its own, drawn on the same axis
        low:    (epoch, value); the plot's upper edge, 25, cuts the early epochs of Theano off
    """

    key: str
    label: str
    measure: str
    low: tuple[tuple[int, float], ...]
    high: tuple[tuple[int, float], ...]

    @property
    def points(self) -> tuple[tuple[int, float], ...]:
        """(epoch, value), the middle between `low` and `high`."""
        pairs = zip(self.low, self.high, strict=True)
        return tuple((e, round((a + b) / 2, 3)) for (e, a), (_, b) in pairs)


FIGURE1_EPOCHS = (10, 30, 48, 80, 110, 140, 180, 225, 300, 400, 490)
FIGURE1_TOP_PCT = 25.0  # the axis ends here


def _curve(
    key: str,
    label: str,
    measure: str,
    low: tuple[float | None, ...],
    high: tuple[float | None, ...] | None = None,
) -> Curve:
    """None where the curve lies above the plot; `high` only where it differs from `low`."""
    lows = tuple((e, v) for e, v in zip(FIGURE1_EPOCHS, low, strict=True) if v is not None)
    highs = tuple((e, v) for e, v in zip(FIGURE1_EPOCHS, high or low, strict=True) if v is not None)
    return Curve(key, label, measure, lows, highs)


FIGURE1 = (
    _curve(
        "float",
        "Baseline (32-bit float)",
        "valid_error",
        (12.4, 11.6, 11.6, 11.0, 10.9, 10.5, 10.3, 10.1, 9.9, 10.0, 10.1),
        (15.0, 12.6, 12.7, 11.9, 11.6, 10.9, 10.8, 10.6, 10.2, 10.4, 10.4),
    ),
    _curve(
        "torch7",
        "BNN (Torch7)",
        "valid_error",
        (20.6, 17.5, 17.5, 13.3, 12.1, 11.9, 11.2, 10.7, 10.6, 10.6, 10.6),
        (25.0, 19.7, 17.5, 14.3, 12.5, 12.6, 11.8, 11.4, 11.2, 10.9, 11.0),
    ),
    _curve(
        "torch7",
        "BNN (Torch7)",
        "train_cost",
        (None, 19.0, 18.6, 12.0, 7.8, 6.7, 4.2, 2.9, 2.4, 1.85, 1.65),
    ),
    _curve(
        "theano",
        "BNN (Theano)",
        "valid_error",
        (None, None, 23.0, 20.5, 16.3, 13.7, 13.2, 11.6, 11.2, 10.5, 10.9),
        (None, None, 25.0, 24.7, 21.3, 18.9, 16.1, 12.9, 11.6, 11.4, 11.6),
    ),
    _curve(
        "theano",
        "BNN (Theano)",
        "train_cost",
        (17.0, 13.5, 11.3, 7.0, 3.8, 1.8, 0.75, 0.35, 0.15, 0.0, 0.0),
    ),
)

# ---- Figure 3: kernels on a GTX 750 ----------------------------------------------------------


def _bar(workload: str, kernel: str, value: float, digits: int) -> Number:
    return Number("Figure 3", kernel, workload, value, "s", read_off=True, digits=digits)


# Workload "gemm" is a product of two 8192 x 8192 matrices, "mlp" the MNIST network on 10,000
# images; "blas" is cuBLAS in the first and Theano in the second. The MLP's first layer always runs
# on the baseline kernel, and its times include packing.
FIGURE3 = {
    (number.column, number.row): number
    for number in (
        _bar("gemm", "baseline", 6.8, 1),
        _bar("gemm", "blas", 0.98, 2),
        _bar("gemm", "xnor", 0.28, 2),
        _bar("mlp", "baseline", 4.65, 2),
        _bar("mlp", "blas", 1.1, 1),
        _bar("mlp", "xnor", 0.66, 2),
    )
}
FIGURE3_GPU = "GTX 750"

# Speed-up of XNOR over another kernel, as the text states it: (workload, over).
FIGURE3_RATIOS = {
    ("gemm", "baseline"): Number("text", "xnor", "gemm over baseline", 23, "times", digits=0),
    ("gemm", "blas"): Number("text", "xnor", "gemm over cuBLAS", 3.4, "times", digits=1),
    ("mlp", "baseline"): Number("text", "xnor", "mlp over baseline", 7, "times", digits=0),
}

# ---- Filter repetitions and other claims -----------------------------------------------------

UNIQUE_FILTERS = Number("text", "unique filters", "cifar10", 42, digits=0)
UNIQUE_FILTERS_FEWER = Number("text", "operations fewer", "cifar10", 3, "times", digits=0)
UNIQUE_FILTERS_SAVED = Number("text", "time saved in hardware", "cifar10", 60, digits=0)
MEMORY_SMALLER = Number("text", "memory", "float32 over binary", 32, "times", digits=0)

# ---- Not in the paper: independent reruns, to compare short schedules with -------------------


@dataclass(frozen=True)
class Rerun:
    """Somebody else's result for a row of Table 1; `epochs` None where not told."""

    who: str
    row: str
    column: str
    error_pct: float
    epochs: int | None
    setting: str


_HOU = "Hou, Yao and Kwok (2017), BNN rerun with Adam"
_HOU_MNIST, _HOU_SVHN = "3 x 2048 units", "the paper's ConvNet"
_HOU_CIFAR10 = "the paper's ConvNet, inputs contrast-normalized and whitened"
RERUNS = (
    Rerun(_HOU, "theano", "mnist", 1.47, 50, _HOU_MNIST),
    Rerun(_HOU, "binaryconnect", "mnist", 1.28, 50, _HOU_MNIST),
    Rerun(_HOU, "float", "mnist", 1.19, 50, _HOU_MNIST),
    Rerun(_HOU, "theano", "svhn", 3.50, 50, _HOU_SVHN),
    Rerun(_HOU, "binaryconnect", "svhn", 2.45, 50, _HOU_SVHN),
    Rerun(_HOU, "float", "svhn", 2.277, 50, _HOU_SVHN),
    Rerun(_HOU, "theano", "cifar10", 12.87, 200, _HOU_CIFAR10),
    Rerun(_HOU, "binaryconnect", "cifar10", 9.86, 200, _HOU_CIFAR10),
    Rerun(_HOU, "float", "cifar10", 11.90, 200, _HOU_CIFAR10),
    Rerun("a user of the authors' script", "theano", "mnist", 0.93, 1000, "unchanged"),
    Rerun(
        "Larq's tutorial", "theano", "cifar10", 16.79, 100,
        "Adam 0.01, batches of 50, cross entropy, no scaled steps; the test set picked the epoch",
    ),
    Rerun(
        "Xilinx BNN-PYNQ", "theano", "mnist", 1.65, 1000, "3 x 1024 units, binarized inputs"
    ),
    Rerun("Xilinx BNN-PYNQ", "theano", "cifar10", 20.46, 500, "a smaller ConvNet"),
)  # fmt: skip
