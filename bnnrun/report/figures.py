"""The figures of a report: what they show, from records alone; their data as CSV."""

import logging
from collections.abc import Iterator, Sequence

import numpy as np

from bnnrun.records import Record
from bnnrun.report import curves, figure3, more_bits, repetitions, speedup
from bnnrun.report.content import Figure, Filters, Panel, Series
from bnnrun.report.experiments import Experiment
from bnnrun.report.filters import bits_of
from bnnrun.report.standing import newest
from bnnrun.report.timing import timed_runs
from bnnrun.table import Plain, csv_text

WEIGHTS = tuple(f"w{y}{x}" for y in range(3) for x in range(3))  # of a filter, row by row

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
    "more_bits": "Test error against bits: not run; no record is of a network of 2 to 8 bits "
    "(`bnnrun train experiment=ablation_mnist binarization.activation_bits=2`).",
}


def figures(records: list[Record], experiments: Sequence[Experiment] = ()) -> list[Figure]:
    """The figures that these records give, the paper's first.

    Args:
        experiments: whose runs, with a setting changed, have no curve as theirs
    """
    runs = timed_runs(records)
    standing = newest(records)
    all_figures = [
        *curves.figures(standing, experiments),
        *figure3.figures(figure3.kernels(runs)),
        *speedup.figures(runs),
        *repetitions.figures(standing),
        *more_bits.figures(standing),
    ]
    order = {name: i for i, name in enumerate(EXPECTED)}
    return sorted(all_figures, key=lambda figure: (order.get(figure.name, len(order)), figure.name))


def absent(all_figures: list[Figure]) -> list[str]:
    """A sentence for each figure that has no records."""
    names = {figure.name for figure in all_figures}
    return [sentence for name, sentence in EXPECTED.items() if name not in names]


def draw(figure: Figure) -> dict[str, bytes]:
    """The figure as "png" and "svg"; matplotlib is loaded here, by those alone who draw."""
    # It warns where no folder can hold its settings, of which a figure takes none.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    from bnnrun.report import plot

    return plot.draw(figure)


def figure_csv(figure: Figure) -> str:
    """What the figure shows, as CSV: a row a point, or a row a filter and input map."""
    if figure.filters is not None:
        return csv_text(["filter", "map", *WEIGHTS], _filter_lines(figure.filters))
    named = any(panel.name or panel.title for panel in figure.panels)
    x_names = [panel.x_name for panel in figure.panels]
    y_names = [name for panel in figure.panels for name in _y_names(panel)]
    names = dict.fromkeys([*["panel"] * named, "series", "of_paper", *x_names, *y_names])
    return csv_text(list(names), _points(figure))


def _y_name(panel: Panel, series: Series) -> str:
    """The paper's series have a name of their own where they have a scale of their own."""
    return f"paper_{panel.y_name}" if series.of_paper and panel.paper_label else panel.y_name


def _y_names(panel: Panel) -> Iterator[str]:
    for series in panel.series:
        name = _y_name(panel, series)
        yield from (name, f"{name}_low", f"{name}_high") if series.low else (name,)


def _points(figure: Figure) -> Iterator[dict[str, Plain]]:
    for panel in figure.panels:
        for series in panel.series:
            name = _y_name(panel, series)
            line: dict[str, Plain] = {"panel": panel.name or panel.title, "series": series.label,
                                      "of_paper": series.of_paper}  # fmt: skip
            for i, (x, y) in enumerate(zip(series.x, series.y, strict=True)):
                place = panel.names[int(x)] if panel.names else x
                noise: dict[str, Plain] = {}
                if series.low:
                    noise = {f"{name}_low": series.low[i], f"{name}_high": series.high[i]}
                yield line | {panel.x_name: place, name: y} | noise


def _filter_lines(filters: Filters) -> Iterator[dict[str, Plain]]:
    for i, of_maps in enumerate(bits_of(filters).transpose(0, 3, 1, 2)):
        for j, bits in enumerate(of_maps):
            signs = (int(sign) for sign in np.where(bits.ravel(), 1, -1))
            yield {"filter": i + 1, "map": j + 1, **dict(zip(WEIGHTS, signs, strict=True))}
