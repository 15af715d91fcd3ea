"""What stands around the paper's tables: ablations, other runs, deviations and reruns."""

from collections.abc import Iterable
from typing import Any

from bnnrun.paper import RERUNS
from bnnrun.report.authors import departures
from bnnrun.report.content import Cell, Table, verdict_cell
from bnnrun.report.experiments import Difference, Experiment, differences
from bnnrun.report.pooling import (
    Pool,
    by_budget,
    difference,
    interval_value,
    notes,
    printed_value,
)
from bnnrun.report.table1 import Cells, cell_id, labelled, number
from bnnrun.table import Column, Listed, Number, Parts, Value
from bnnrun.table import number as value

ABLATED = 3  # settings at most that a run may change to be an ablation of an experiment


# ---- ablations and other runs ----------------------------------------------------------------


def ablations(
    cells: Cells, experiments: list[Experiment], elsewhere: Iterable[Pool]
) -> tuple[Table, list[Pool]]:
    """Runs that change a few settings of an experiment, beside it; and the pools left over.

    Args:
        elsewhere: pools that another table shows
    """
    rows, left = [], []
    elsewhere = list(elsewhere)
    for each in by_budget([*cells.altered, *cells.others]):
        if each in elsewhere:
            continue
        nearest = _nearest_experiment(each, experiments)
        if nearest is None:
            left.append(each)
            continue
        base, changed = nearest
        rows.append(_ablation_row(each, base, changed, _unaltered(cells, base, each)))
    table = Table(
        name="ablations",
        title="Ablations",
        columns=(
            Column("of", "experiment"),
            Column("changed (from)", "changed changed_from"),
            Column("epochs"),
            Column("test error %", "error_pct deviation_pct", notes="notes"),
            Column("n"),
            Column("unchanged %", "unchanged_pct unchanged_deviation_pct unchanged_n"),
            Column("verdict"),
        ),
        rows=tuple(sorted(rows, key=lambda row: (row[0].text, row[1].text))),
        notes=("Beside runs of the unchanged experiment of as many epochs, where there are any; "
               "within noise is inside twice the deviation of both, seeds and test images.",),
    )  # fmt: skip
    return table, left


def _nearest_experiment(
    each: Pool, experiments: list[Experiment]
) -> tuple[Experiment, tuple[Difference, ...]] | None:
    """The experiment of the same data that differs least, in 1 to `ABLATED` settings."""
    config = each.first.config
    by_name = {
        e.name: (e, differences(config, e))
        for e in experiments
        if e.config.dataset.name == each.dataset and "arch" in config
    }
    named = [by_name[name] for name in by_name if name == each.first.experiment]
    best = min(named or by_name.values(), key=lambda pair: len(pair[1]), default=None)
    return best if best is not None and 1 <= len(best[1]) <= ABLATED else None


def _unaltered(cells: Cells, base: Experiment, each: Pool) -> Pool | None:
    """Runs of the experiment itself, of as many epochs."""
    own = [p for p in cells.others if p.first.experiment == base.name
           and not differences(p.first.config, base)]  # fmt: skip
    same = [p for p in [*cells.pools.get(base.cell, []), *own] if p.epochs == each.epochs]
    return by_budget(same)[0] if same else None


def _ablation_row(
    each: Pool, base: Experiment, changed: tuple[Difference, ...], other: Pool | None
) -> tuple[Cell, ...]:
    sides = ("; ".join(c.change for c in changed), "; ".join(c.base for c in changed))
    return (
        Cell(base.name),
        Cell(Parts("; ".join(map(str, changed)), sides)),
        Cell(value(each.epochs)),
        Cell(each.measured,
             f"ablations.{base.name}.{each.first.checksum[:8]}", notes=notes(each),
             records=each.names),
        Cell(Number(each.n)),
        Cell(other.measured_n if other else "",
             records=other.names if other else ()),
        verdict_cell(difference(each, other) if other else ""),
    )  # fmt: skip


def others(pools: list[Pool]) -> Table:
    """Runs that belong to no cell of the paper."""
    rows = []
    for each in sorted(pools, key=lambda p: (p.dataset, p.first.experiment, -(p.epochs or 0))):
        rows.append(
            (
                Cell(each.first.experiment or "(own settings)"),
                Cell(each.dataset),
                Cell(_network(each.first.config)),
                Cell(each.measured,
                     f"other.{each.first.experiment or each.dataset}.{each.first.checksum[:8]}",
                     notes=notes(each), records=each.names),
                Cell(Number(each.n)),
                Cell(interval_value(each)),
                Cell(value(each.epochs)),
                Cell(each.mean_of("last_epoch_test_error_pct")),
                Cell(each.mean_of("valid_error_pct")),
            )
        )  # fmt: skip
    return Table(
        name="other_runs",
        title="Other runs: no cell of the paper",
        columns=(
            Column("experiment"),
            Column("data", "dataset"),
            Column("network", "arch depth width channels weights activations"),
            Column("test error %", "error_pct deviation_pct", notes="notes"),
            Column("n"),
            Column("95 % interval", "low_pct high_pct"),
            Column("epochs"),
            Column("last epoch %", "last_epoch_error_pct last_epoch_deviation_pct"),
            Column("validation %", "valid_error_pct valid_deviation_pct"),
        ),
        rows=tuple(rows),
    )


def _network(config: dict[str, Any]) -> Parts:
    """'mlp 3 x 512, weights sign, activations sign' or 'convnet 128-128-256, ...'."""
    arch, binarizers = config.get("arch", {}), config.get("binarization", {})
    channels = "-".join(map(str, arch.get("channels") or ()))
    shape = f"{arch.get('name', '')} {channels}" if channels else ""
    if "depth" in arch:
        shape = f"{arch['name']} {arch['depth']} x {arch.get('width')}"
    binary = ""
    if binarizers:
        binary = f"weights {binarizers['weights']}, activations {binarizers['activations']}"
    return Parts(
        ", ".join(filter(None, (shape, binary))),
        (arch.get("name"), arch.get("depth"), arch.get("width"), channels or None,
         binarizers.get("weights"), binarizers.get("activations")),
    )  # fmt: skip


# ---- deviations and reruns -------------------------------------------------------------------


def deviations(experiments: list[Experiment]) -> Table:
    """How each cell's experiment departs from the authors: from its file, and from its settings."""
    cells: dict[tuple[str, Value, Value, Value], list[str]] = {}
    for e in sorted((e for e in experiments if e.cell), key=lambda e: e.cell):
        for row in all_departures(e):
            cells.setdefault(row, []).append(e.cell.removeprefix("table1."))
    rows = [tuple(map(Cell, (*row, Listed(tuple(names))))) for row, names in cells.items()]
    return Table(
        name="deviations",
        title="Deviations from the paper",
        columns=(
            Column("what"),
            Column("here"),
            Column("the authors' code", "authors_code"),
            Column("the paper's text", "paper_text"),
            Column("cells of Table 1", "cell", spreads=True),
        ),
        rows=tuple(sorted(rows, key=lambda row: (row[1].text != "", row[0].text))),
        notes=(
            "Sentences are from the experiments' files, settings from what they compose to. A "
            "setting is listed where ours is not the code's or not the text's; the Torch7 cells "
            "follow the code, which made the printed numbers.",
        ),
    )


def all_departures(e: Experiment) -> list[tuple[str, Value, Value, Value]]:
    """(what, here, in the authors' code, in the paper's text), in sentences and in settings."""
    against, sentences = e.deviations
    _, which, clause = against.partition("which ")
    texts = [*([f"the paper {clause}"] if which else []), *sentences]
    return [*((text, "", "", "") for text in texts), *departures(e)]


def reruns(cells: Cells) -> Table:
    """Other people's results for the same rows, to see what shorter schedules can give."""
    rows = []
    for each in RERUNS:
        cell = cell_id(each.row, each.column)
        lead = cells.lead(cell)
        ours = lead.measured_n if lead else ""
        rows.append(
            (
                Cell(labelled(cell)),
                Cell(each.who),
                Cell(each.setting),
                Cell(value(each.epochs)),
                Cell(Number(each.error_pct, "{:.2f}")),
                Cell(printed_value(number(cell))),
                Cell(ours, records=lead.names if lead else ()),
                Cell(value(lead.epochs if lead else None)),
            )
        )
    return Table(
        name="reruns",
        title="Independent reruns, to compare short schedules with",
        columns=(
            Column("cell", "method dataset"),
            Column("by"),
            Column("setting"),
            Column("epochs"),
            Column("test error %", "error_pct"),
            Column("paper %", "paper_pct paper_deviation_pct"),
            Column("ours %", "ours_pct ours_deviation_pct ours_n"),
            Column("our epochs", "ours_epochs"),
        ),
        rows=tuple(rows),
    )
