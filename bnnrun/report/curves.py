"""Curves by epoch (Figure 1): validation error and training cost, the paper's beside ours."""

from collections.abc import Sequence

from bnnrun import paper
from bnnrun.records import Record
from bnnrun.report.content import Figure, Panel, Series
from bnnrun.report.experiments import Experiment, differences

ERROR_LABEL = "validation error, %"
COST_LABEL = "training cost,\nmean squared hinge"
PAPER_COST_LABEL = "the paper's cost,\nits own scale, no unit"


def figures(records: list[Record], experiments: Sequence[Experiment]) -> list[Figure]:
    """Figure 1 where there are runs on CIFAR-10, and the same curves of each other data set.

    Where a data set has runs of Table 1's cells, those of other experiments are left out.
    """
    of_data: dict[str, list[Record]] = {}
    for record in longest(drawable(records, experiments)):
        of_data.setdefault(record.data["name"], []).append(record)
    return [
        _figure(data, [run for run in runs if run.cell] or runs)
        for data, runs in sorted(of_data.items())
    ]


def drawable(records: list[Record], experiments: Sequence[Experiment]) -> list[Record]:
    """All but runs that name a cell or an experiment and changed its settings, or that started
    from weights trained before: their curves are neither's.
    """
    by_cell = {e.cell: e for e in experiments if e.cell}
    by_name = {e.name: e for e in experiments}

    def altered(record: Record) -> bool:
        named = by_cell.get(record.cell) or by_name.get(record.experiment)
        changed = named is not None and differences(record.config, named)
        return bool(record.config.get("init") or changed)

    return [record for record in records if not altered(record)]


def longest(records: list[Record]) -> list[Record]:
    """Of each cell, else experiment, the run of the most epochs that kept its curve; the latest."""
    by_cell: dict[str, Record] = {}
    for record in records:  # oldest first
        cell = record.cell or record.experiment
        known = record.quantity == "test_error" and record.data.get("name")
        epochs = _epochs(record) if known else 0
        if cell and epochs and (cell not in by_cell or epochs >= _epochs(by_cell[cell])):
            by_cell[cell] = record
    return [by_cell[cell] for cell in sorted(by_cell)]


def _epochs(record: Record) -> int:
    """Epochs of the record's curve, 0 where it has none, or one point alone."""
    curve = record.details.get("curve")
    if not isinstance(curve, dict):
        return 0
    error, cost = curve.get("valid_error_pct"), curve.get("train_loss")
    if not isinstance(error, list) or not isinstance(cost, list) or len(error) != len(cost):
        return 0
    is_complete = len(error) > 1 and all(isinstance(v, int | float) for v in error + cost)
    return len(error) if is_complete else 0


def _figure(data: str, runs: list[Record]) -> Figure:
    of_paper = paper.FIGURE1 if data == "cifar10" else ()
    longest_run = max(_epochs(run) for run in runs)
    # On a linear axis of 500 epochs a run of a few is a dot on the edge.
    log = bool(of_paper) and longest_run < paper.FIGURE1_EPOCHS[-1] / 10
    epochs = f"epoch{' (log scale)' if log else ''}"
    printed = [_of_paper(curve) for curve in of_paper]
    error = [
        c for c, curve in zip(printed, of_paper, strict=True) if curve.measure == "valid_error"
    ]
    cost = [c for c, curve in zip(printed, of_paper, strict=True) if curve.measure == "train_cost"]
    ours = [_ours(run) for run in runs]
    name = paper.DATASETS.get(data, data)
    return Figure(
        name="figure1" if of_paper else f"curves_{data}",
        title=f"{'Figure 1: training' if of_paper else 'Training'} on {name}",
        caption=_caption(runs, with_paper=bool(of_paper)),
        panels=(
            Panel("validation error", epochs, ERROR_LABEL,
                  (*(curve for curve, _ in ours), *error), log_x=log,
                  name="valid_error", x_name="epoch", y_name="valid_error_pct"),
            Panel("training cost (dashed)", epochs, COST_LABEL,
                  (*(curve for _, curve in ours), *cost), log_x=log,
                  paper_label=PAPER_COST_LABEL if cost else "",
                  name="train_cost", x_name="epoch", y_name="train_cost"),
        ),
    )  # fmt: skip


def _ours(run: Record) -> tuple[Series, Series]:
    """Validation error and training cost of a run."""
    count, curve = _epochs(run), run.details["curve"]
    group, x = row_label(run), tuple(float(e) for e in range(1, count + 1))
    label = f"{group}, ours, {count} epochs"
    error, cost = (
        tuple(map(float, curve["valid_error_pct"])),
        tuple(map(float, curve["train_loss"])),
    )
    return (
        Series(label, x, error, group=group, records=(run.name,)),
        Series(label, x, cost, group=group, dashed=True, records=(run.name,)),
    )


def row_label(run: Record) -> str:
    """The run's row of Table 1, else its experiment."""
    label = {row.key: row.label for row in paper.TABLE1_ROWS}.get(run.cell.rpartition(".")[2], "")
    return "no binarization" if label == "No regularization" else label or run.experiment


def _of_paper(curve: paper.Curve) -> Series:
    labels = {"float": "no binarization"}
    group = labels.get(curve.key, curve.label)
    return Series(
        label=f"{group}, paper",
        x=tuple(float(epoch) for epoch, _ in curve.points),
        y=tuple(value for _, value in curve.points),
        group=group,
        low=tuple(value for _, value in curve.low),
        high=tuple(value for _, value in curve.high),
        dashed=curve.measure == "train_cost",
        of_paper=True,
    )


def _caption(runs: list[Record], *, with_paper: bool) -> str:
    text = ["Of each cell, else experiment, the longest run whose record holds a curve."]
    if with_paper:
        text.append(
            "The paper's points are read off its plot to about ±0.2, a bar showing the noise of "
            f"its curve; what lies above {paper.FIGURE1_TOP_PCT:g} is cut off there. Its cost is "
            "drawn on an unlabelled scale: compare shapes, not heights."
        )
    notes = {note: None for run in runs for note in run.data.get("notes", [])}
    if notes:
        text.append(f"Data: {'; '.join(notes)}.")
    if any(run.source.get("clean") is False for run in runs):
        text.append("Some were run from a tree with changes that are in no commit.")
    return " ".join(text)
