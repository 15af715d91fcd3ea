"""What a report is made of, before any format: tables of cells, figures of series."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Cell:
    """What a table shows in one place.

    Attributes:
        text:    what is shown; "" where nothing was measured
        id:      "table1.mnist.theano", for `report cell=` and links; "" where nothing leads back
        paper:   the paper's number as it prints it, "" where it prints none
        verdict: "within noise", "better", "worse", "reduced budget (20 of 1000 epochs)",
                 "different data", "not run"; "" where none applies
        notes:   what a reader must know of this number: the tree was not clean, and the like
        records: names of the records it is made of, oldest first
    """

    text: str
    id: str = ""
    paper: str = ""
    verdict: str = ""
    notes: tuple[str, ...] = ()
    records: tuple[str, ...] = ()


@dataclass(frozen=True)
class Table:
    """Rows of cells under columns; `name` is the stem of its files."""

    name: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Series:
    """One curve of a figure; `of_paper` where it was read off the paper's plot."""

    label: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    of_paper: bool = False
    records: tuple[str, ...] = ()


@dataclass(frozen=True)
class Figure:
    """Curves over one axis, units in the labels; `name` is the stem of its files."""

    name: str
    title: str
    caption: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    log_x: bool = False
    log_y: bool = False
