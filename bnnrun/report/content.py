"""What a report is made of, before any format: tables of cells, figures of series."""

from dataclasses import dataclass

from bnnrun.table import Column, Parts, Value


@dataclass(frozen=True)
class Cell:
    """What a table shows in one place.

    Attributes:
        value:   what is shown; "" where nothing was measured
        id:      "table1.mnist.theano", for `report cell=` and links; "" where nothing leads back
        paper:   the paper's number as it prints it, "" where it prints none
        verdict: "within noise", "better", "worse", "reduced budget (20 of 1000 epochs)",
                 "different data", "not run"; "" where none applies
        notes:   what a reader must know of this number: the tree was not clean, and the like
        records: names of the records it is made of, oldest first
    """

    value: Value
    id: str = ""
    paper: Value = ""
    verdict: str = ""
    notes: tuple[str, ...] = ()
    records: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The value as readers see it."""
        return str(self.value)


def bare(verdict: str) -> str:
    """A verdict without what it has in parentheses, its epochs."""
    return verdict.partition(" (")[0]


def verdict_cell(verdict: str, id: str = "", records: tuple[str, ...] = ()) -> Cell:
    """A verdict in a column of its own."""
    return Cell(Parts(verdict, (bare(verdict) or None,)), id, verdict=verdict, records=records)


@dataclass(frozen=True)
class Table:
    """Rows of cells under columns; `name` is the stem of its files."""

    name: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Series:
    """One curve, or one colour of bars.

    Attributes:
        label:     in the legend
        x, y:      points; of bars `x` counts the panel's names from 0
        group:     what it shows: series of the same group share a colour and a marker
        low, high: the noise around `y`; () where none is known
        dashed:    the curve is drawn dashed
        of_paper:  read off the paper's plot, or printed there
        records:   names of the records it is made of
    """

    label: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    group: str = ""
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    dashed: bool = False
    of_paper: bool = False
    records: tuple[str, ...] = ()


@dataclass(frozen=True)
class Panel:
    """One pair of axes, the units in their labels.

    Attributes:
        name:        in the figure's CSV file, "" takes the title
        x_name:      of `x` there, an identifier with the unit; y_name of `y`
        names:       of the places along `x`, instead of numbers
        bars:        lying bars, a group for each of `names`, instead of curves
        paper_label: of an axis to the right, where the paper's series have a scale of their own
        mark:        of `x`, a line across
    """

    title: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    log_x: bool = False
    log_y: bool = False
    names: tuple[str, ...] = ()
    bars: bool = False
    paper_label: str = ""
    mark: float | None = None
    name: str = ""
    x_name: str = "x"
    y_name: str = "y"


@dataclass(frozen=True)
class Filters:
    """3x3 filters of ±1; `bits` are their packed rows in hexadecimal, a word's low byte first."""

    outputs: int
    channels: int
    bits: str


@dataclass(frozen=True)
class Figure:
    """Panels over each other, or a picture of filters; `name` is the stem of its files."""

    name: str
    title: str
    caption: str
    panels: tuple[Panel, ...] = ()
    filters: Filters | None = None
    records: tuple[str, ...] = ()
