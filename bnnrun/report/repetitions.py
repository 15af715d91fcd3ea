"""Figures of filters: the first layer's (Figure 2), and how many of each layer's differ."""

from collections.abc import Callable
from typing import Any

from bnnrun import paper
from bnnrun.records import Record
from bnnrun.report.content import Figure, Filters, Panel, Series
from bnnrun.report.filters import bits_of


def figures(records: list[Record]) -> list[Figure]:
    """Figure 2 and the unique filters, each where there are records for it."""
    with_filters = [record for record in records if record.quantity == "unique_filters"]
    return [*_figure2([r for r in with_filters if first_layer(r)]), *_unique(with_filters)]


def first_layer(record: Record) -> Filters | None:
    """The first layer's filters; None in records of versions that did not keep them."""
    try:
        filters = Filters(**record.details["first_layer"])
        bits_of(filters)
    except (KeyError, TypeError, ValueError):
        return None
    return filters


def _longest(records: list[Record], key: Callable[[Record], Any]) -> list[Record]:
    """Of each key the network that was trained longest; of equals the latest record."""
    longest: dict[Any, Record] = {}
    for record in records:  # oldest first
        group = key(record)
        if group not in longest or _epoch(record) >= _epoch(longest[group]):
            longest[group] = record
    return [longest[group] for group in sorted(longest)]


def _epoch(record: Record) -> int:
    epoch = str(record.details.get("trained", {}).get("epoch", ""))
    return int(epoch) if epoch.isdecimal() else 0


def _data(record: Record) -> str:
    return str(record.details.get("trained", {}).get("dataset", "")) or "data not told"


def _network(record: Record) -> str:
    """'CIFAR-10, epoch 3'."""
    data = _data(record)
    return f"{paper.DATASETS.get(data, data)}, epoch {_epoch(record)}"


def _figure2(records: list[Record]) -> list[Figure]:
    """Of the CIFAR-10 network that was trained longest, as the paper's; else of any."""
    if not records:
        return []
    of_paper = [record for record in records if _data(record) == "cifar10"]
    (record,) = _longest(of_paper or records, lambda _: "")
    filters = first_layer(record)
    assert filters is not None
    colour = " of red, green and blue, a colour for each of their signs" * (filters.channels == 3)
    shown = min(256, filters.outputs)
    caption = (f"{_network(record)}: {shown} of {filters.outputs} filters of 3x3 weights{colour}; "
               "+1 is light, -1 dark.")  # fmt: skip
    title = "Figure 2: binary filters of the first convolution"
    return [Figure("figure2", title, caption, filters=filters, records=(record.name,))]


def _unique(records: list[Record]) -> list[Figure]:
    """A curve for each data set over the layers, and that of random weights."""
    records = [r for r in records if _shares(r)]
    if not records:
        return []
    series, layers = [], max((tuple(_shares(r)) for r in records), key=len)
    for record in _longest(records, _data):
        shares = _shares(record)
        x = tuple(float(layers.index(name)) for name in shares if name in layers)
        for label, column, dashed in (("", 0, False), (", by chance", 1, True)):
            y = tuple(pair[column] for name, pair in shares.items() if name in layers)
            series.append(Series(_network(record) + label, x, y, group=_data(record) + label,
                                 dashed=dashed, records=(record.name,)))  # fmt: skip
    hidden = tuple(float(i) for i in range(1, len(layers)))
    value = paper.UNIQUE_FILTERS.value
    series.append(Series("paper, average over layers", hidden, (value,) * len(hidden),
                         group="paper", dashed=True, of_paper=True))  # fmt: skip
    caption = (
        "Different 3x3 filters of an input map, a filter and its negative being one, over the "
        "number of output maps; mean over input maps. The paper gives one number and no "
        "definition. By chance: the expected share of random weights."
    )
    panel = Panel("", "layer", "unique filters, %", tuple(series), names=layers,
                  x_name="layer", y_name="unique_pct")  # fmt: skip
    return [Figure("unique_filters", "Unique filters of each layer", caption, (panel,))]


def _shares(record: Record) -> dict[str, tuple[float, float]]:
    """(unique, by chance) % of each layer."""
    try:
        return {
            str(name): (float(layer["unique_pct"]), float(layer["by_chance_pct"]))
            for name, layer in record.details["layers"].items()
        }
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}
