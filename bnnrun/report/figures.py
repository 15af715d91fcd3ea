"""The figures of a report: what they show, from records alone; their data as CSV."""

import csv
import io
from collections.abc import Iterator

import numpy as np

from bnnrun.records import Record
from bnnrun.report import curves, repetitions, speed
from bnnrun.report.content import Figure, Filters
from bnnrun.report.filters import bits_of

# What a report shows where there are records for it, in its order, and how to get them.
EXPECTED = {
    "figure1": "Figure 1 (training on CIFAR-10): not run; no record of a CIFAR-10 cell holds a "
    "curve of two epochs or more.",
    "figure2": "Figure 2 (filters of the first layer): not run; no record holds their bits, which "
    "`bnnrun filters` of this version keeps.",
    "figure3": "Figure 3 (times beside the paper's): not run; no record times the 8192-cubed "
    "product or the MNIST network on 10,000 images.",
    "speedup": "Speed-up against size: not run; no record times a product with M = N = K.",
    "unique_filters": "Unique filters of each layer: not run; `bnnrun filters` counts them.",
    "curves_mnist": "Training on MNIST: not run; no record of an MNIST cell holds a curve of two "
    "epochs or more.",
    "curves_svhn": "Training on SVHN: not run; no record of an SVHN cell holds a curve of two "
    "epochs or more.",
}


def figures(records: list[Record]) -> list[Figure]:
    """The figures that these records give, the paper's first."""
    found = [*curves.figures(records), *speed.figures(records), *repetitions.figures(records)]
    order = {name: i for i, name in enumerate(EXPECTED)}
    return sorted(found, key=lambda figure: (order.get(figure.name, len(order)), figure.name))


def absent(found: list[Figure]) -> list[str]:
    """A sentence for each figure that has no records."""
    names = {figure.name for figure in found}
    return [sentence for name, sentence in EXPECTED.items() if name not in names]


def draw(figure: Figure) -> dict[str, bytes]:
    """The figure as "png" and "svg"; matplotlib is loaded here, by those alone who draw."""
    from bnnrun.report import plot

    return plot.draw(figure)


def figure_csv(figure: Figure) -> str:
    """What the figure shows, as CSV: a row a point, or a row a filter."""
    text = io.StringIO()
    rows = _rows(figure) if figure.filters is None else _filter_rows(figure.filters)
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _rows(figure: Figure) -> Iterator[list[str]]:
    yield ["panel", "series", "of the paper", "x", "y", "low", "high"]
    for panel in figure.panels:
        for series in panel.series:
            noise = zip(series.low, series.high, strict=True) if series.low else ()
            ends = [*noise] or [("", "")] * len(series.x)
            for x, y, (low, high) in zip(series.x, series.y, ends, strict=True):
                place = panel.names[int(x)] if panel.names else _number(x)
                yield [panel.title, series.label, "yes" if series.of_paper else "no",
                       place, _number(y), _number(low), _number(high)]  # fmt: skip


def _number(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.6g}"


def _filter_rows(filters: Filters) -> Iterator[list[str]]:
    """A row a filter: of each input map its nine signs, row by row."""
    yield ["filter", *(f"map {i + 1}" for i in range(filters.channels))]
    for i, w in enumerate(bits_of(filters)):
        signs = np.where(w.reshape(9, -1).T, "+", "-")
        yield [str(i + 1), *("".join(one) for one in signs)]
