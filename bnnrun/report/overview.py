"""What stands around the paper's tables: ablations, other runs, deviations, and the summary."""

import math

from bnnrun.paper import DATASETS, EPOCHS, RERUNS, TRAIN_IMAGES
from bnnrun.records import Record
from bnnrun.report.authors import departures
from bnnrun.report.content import Cell, Table
from bnnrun.report.experiments import Experiment, differences
from bnnrun.report.pooling import (
    BETTER,
    DIFFERENT_DATA,
    NOT_RUN,
    REDUCED,
    WITHIN_NOISE,
    WORSE,
    Pool,
    by_budget,
    data_notes,
    difference,
    distance,
    interval,
    mean_and_deviation,
    notes,
)
from bnnrun.report.speed import machine
from bnnrun.report.table1 import Cells, cell_id, label, number

ABLATED = 3  # settings at most that a run may change to be an ablation of an experiment


# ---- ablations and other runs ----------------------------------------------------------------


def ablations(cells: Cells, experiments: list[Experiment]) -> tuple[Table, list[Pool]]:
    """Runs that change a few settings of an experiment, beside it; and the pools left over."""
    rows, left = [], []
    for each in by_budget([*cells.altered, *cells.others]):
        found = _nearest_experiment(each, experiments)
        if found is None:
            left.append(each)
            continue
        base, changed = found
        rows.append(_ablation_row(each, base, changed, _unaltered(cells, base, each)))
    table = Table(
        name="ablations",
        title="Ablations",
        columns=("of", "changed (from)", "epochs", "test error %", "n", "unchanged %", "verdict"),
        rows=tuple(sorted(rows, key=lambda row: (row[0].text, row[1].text))),
        notes=("Beside runs of the unchanged experiment of as many epochs, where there are any; "
               "within noise is inside twice the deviation of both, seeds and test images.",),
    )  # fmt: skip
    return table, left


def _nearest_experiment(
    each: Pool, experiments: list[Experiment]
) -> tuple[Experiment, tuple[str, ...]] | None:
    """The experiment of the same data that differs least, in 1 to `ABLATED` settings."""
    config = each.first.config
    found = {
        e.name: (e, differences(config, e))
        for e in experiments
        if e.config.dataset.name == each.dataset and "arch" in config
    }
    named = [found[name] for name in found if name == each.first.experiment]
    best = min(named or found.values(), key=lambda pair: len(pair[1]), default=None)
    return best if best is not None and 1 <= len(best[1]) <= ABLATED else None


def _unaltered(cells: Cells, base: Experiment, each: Pool) -> Pool | None:
    """Runs of the experiment itself, of as many epochs."""
    own = [p for p in cells.others if p.first.experiment == base.name
           and not differences(p.first.config, base)]  # fmt: skip
    same = [p for p in [*cells.pools.get(base.cell, []), *own] if p.epochs == each.epochs]
    return by_budget(same)[0] if same else None


def _ablation_row(
    each: Pool, base: Experiment, changed: tuple[str, ...], other: Pool | None
) -> tuple[Cell, ...]:
    what = "; ".join(changed)
    said = difference(each, other) if other else ""
    return (
        Cell(base.name),
        Cell(what),
        Cell("" if each.epochs is None else f"{each.epochs:,}"),
        Cell(mean_and_deviation(r.value for r in each.records),
             f"ablations.{base.name}.{each.first.checksum[:8]}", notes=notes(each),
             records=each.names),
        Cell(str(each.n)),
        Cell(mean_and_deviation(r.value for r in other.records) if other else "",
             records=other.names if other else ()),
        Cell(said, verdict=said),
    )  # fmt: skip


def others(pools: list[Pool]) -> Table:
    """Runs that belong to no cell of the paper."""
    rows = []
    for each in sorted(pools, key=lambda p: (p.dataset, p.first.experiment, -(p.epochs or 0))):
        config, found = each.first.config, interval(each)
        network = ", ".join(filter(None, (_shape(config.get("arch", {})), _binary(config))))
        rows.append(
            (
                Cell(each.first.experiment or "(own settings)"),
                Cell(each.dataset),
                Cell(network),
                Cell(mean_and_deviation(r.value for r in each.records),
                     f"other.{each.first.experiment or each.dataset}.{each.first.checksum[:8]}",
                     notes=notes(each), records=each.names),
                Cell(str(each.n)),
                Cell(f"{found[0]:.2f} to {found[1]:.2f}" if found else ""),
                Cell("" if each.epochs is None else f"{each.epochs:,}"),
                Cell(each.mean_of("last_epoch_test_error_pct")),
                Cell(each.mean_of("valid_error_pct")),
            )
        )  # fmt: skip
    return Table(
        name="other_runs",
        title="Other runs: no cell of the paper",
        columns=("experiment", "data", "network", "test error %", "n", "95 % interval", "epochs",
                 "last epoch %", "validation %"),
        rows=tuple(rows),
    )  # fmt: skip


def _shape(arch: dict[str, object]) -> str:
    """'mlp 3 x 512' or 'convnet 128-128-256'."""
    if "depth" in arch:
        return f"{arch['name']} {arch['depth']} x {arch.get('width')}"
    channels = arch.get("channels")
    return f"{arch.get('name', '')} {'-'.join(map(str, channels))}" if channels else ""  # type: ignore[call-overload]


def _binary(config: dict[str, dict[str, object]]) -> str:
    kind = config.get("binarization", {})
    return f"weights {kind['weights']}, activations {kind['activations']}" if kind else ""


# ---- deviations and reruns -------------------------------------------------------------------


def deviations(experiments: list[Experiment]) -> Table:
    """How each cell's experiment departs from the authors: from its file, and from its settings."""
    found: dict[tuple[str, str, str, str], list[str]] = {}
    for e in sorted((e for e in experiments if e.cell), key=lambda e: e.cell):
        for row in _departures(e):
            found.setdefault(row, []).append(e.cell.removeprefix("table1."))
    rows = [tuple(map(Cell, (*row, ", ".join(of)))) for row, of in found.items()]
    return Table(
        name="deviations",
        title="Deviations from the paper",
        columns=("what", "here", "the authors' code", "the paper's text", "cells of Table 1"),
        rows=tuple(sorted(rows, key=lambda row: (row[1].text != "", row[0].text))),
        notes=(
            "Sentences are from the experiments' files, settings from what they compose to. A "
            "setting is listed where ours is not the code's or not the text's; the Torch7 cells "
            "follow the code, which made the printed numbers.",
        ),
    )


def _departures(e: Experiment) -> list[tuple[str, str, str, str]]:
    """(what, here, in the authors' code, in the paper's text), in sentences and in settings."""
    against, sentences = e.deviations
    _, which, clause = against.partition("which ")
    told = [*([f"the paper {clause}"] if which else []), *sentences]
    return [*((text, "", "", "") for text in told), *departures(e)]


def reruns(cells: Cells) -> Table:
    """Other people's results for the same rows, to see what shorter schedules can give."""
    rows = []
    for each in RERUNS:
        cell = cell_id(each.row, each.column)
        lead = cells.lead(cell)
        ours = mean_and_deviation(r.value for r in lead.records) if lead else ""
        budget = f"{lead.epochs:,}" if lead and lead.epochs else ""
        rows.append(
            (
                Cell(label(cell)),
                Cell(each.who),
                Cell(each.setting),
                Cell("" if each.epochs is None else f"{each.epochs:,}"),
                Cell(f"{each.error_pct:.2f}"),
                Cell(number(cell).text),
                Cell(ours, records=lead.names if lead else ()),
                Cell(budget),
            )
        )
    return Table(
        name="reruns",
        title="Independent reruns, to compare short schedules with",
        columns=("cell", "by", "setting", "epochs", "test error %", "paper %", "ours %",
                 "our epochs"),
        rows=tuple(rows),
    )  # fmt: skip


# ---- summary ---------------------------------------------------------------------------------

ORDER = (WITHIN_NOISE, BETTER, WORSE, REDUCED, DIFFERENT_DATA, NOT_RUN)
GROUPS = {
    WITHIN_NOISE: "matched", BETTER: "did not match, better", WORSE: "did not match, worse",
    REDUCED: "run with fewer epochs", DIFFERENT_DATA: "run on different data", NOT_RUN: NOT_RUN,
}  # fmt: skip


def summary(cells: Cells, experiments: list[Experiment], damaged: list[str]) -> Table:
    """What matched, what did not, how far and why, what was not run, what the paper's schedule
    would cost.
    """
    protocol = {e.cell: len(_departures(e)) for e in experiments}
    said = {cell: cells.verdict(cell) for cell in cells}
    group = {cell: next(name for name in ORDER if said[cell].startswith(name)) for cell in cells}
    hours = {cell: cost_h(cells, cell) for cell in cells}
    rows = []
    for cell in sorted(cells, key=lambda cell: ORDER.index(group[cell])):
        lead, estimate = cells.lead(cell), hours[cell]
        ours = mean_and_deviation(r.value for r in lead.records) if lead else ""
        rows.append(
            (
                Cell(GROUPS[group[cell]]),
                Cell(label(cell)),
                Cell(number(cell).text),
                Cell(ours, cell, records=lead.names if lead else ()),
                *_distance(lead, cell),
                Cell(said[cell], cell, verdict=said[cell]),
                Cell(_why(lead, cell, protocol[cell]) if lead else ""),
                Cell("" if estimate is None else f"{estimate[0]:,.0f}",
                     notes=(estimate[1],) if estimate else ()),
            )
        )  # fmt: skip
    counts = [f"{GROUPS[name]}: {sum(g == name for g in group.values())}" for name in ORDER]
    known = [hours_of[0] for hours_of in hours.values() if hours_of]
    lines = [
        f"Of the {len(group)} cells of Table 1 that experiments reproduce: {'; '.join(counts)}."
    ]
    if known:
        lines.append(
            f"One run of the paper's whole schedule for {len(known)} of them would take about "
            f"{sum(known):,.0f} hours of training by the epochs measured, on the machines named."
        )
    lines.append(
        "Points are ours less the paper's, in % of test images; standard deviations are points "
        "over sqrt(s²/n + 2p(1-p)/N), Table 1's noise halved: what seeds and the draw of test "
        "images leave to chance. They say how sure it is that the numbers differ, not why: that "
        "are fewer epochs (budget), other images (data) and what Deviations lists (protocol)."
    )
    lines += [f"A record was left out: {line}" for line in damaged]
    return Table(
        name="summary",
        title="Summary",
        columns=("outcome", "cell", "paper %", "ours %", "points", "standard deviations", "verdict",
                 "differs in", "hours of the whole schedule"),
        rows=tuple(rows),
        notes=tuple(lines),
    )  # fmt: skip


def _distance(lead: Pool | None, cell: str) -> tuple[Cell, Cell]:
    """How far ours is from the paper's: in points, in standard deviations."""
    if lead is None:
        return Cell(""), Cell("")
    points, deviations = distance(lead, number(cell))
    return Cell(f"{points:+.2f}"), Cell("" if deviations is None else f"{deviations:+.1f}")


def _why(lead: Pool, cell: str, protocol: int) -> str:
    """In what the runs differ: 'budget (20 of 1,000 epochs), protocol (2 differences)'."""
    found = []
    whole = EPOCHS[number(cell).column]
    if lead.epochs is None:
        found.append("budget (epochs not recorded)")
    elif lead.epochs < whole:
        found.append(f"budget ({lead.epochs:,} of {whole:,} epochs)")
    if data_notes(lead.first):
        found.append("data")
    if protocol:
        found.append(f"protocol ({protocol} difference{'s' if protocol > 1 else ''})")
    return ", ".join(found)


def cost_h(cells: Cells, cell: str) -> tuple[float, str] | None:
    """(hours that one run of the paper's schedule trains, how that is known); None where no epoch
    of these data was measured.

    By the cell's own longest run, else by one of the same data, at the rate of its middle epoch:
    a run that was paused now and then is no slower.
    """
    column = number(cell).column
    own = cells.pools[cell]
    same = [p for other in cells for p in cells.pools[other] if number(other).column == column]
    for each in by_budget(p for p in own if _rate(p)) or by_budget(p for p in same if _rate(p)):
        epoch_s = TRAIN_IMAGES[column] / _rate(each)
        hours = epoch_s * EPOCHS[column] / 3600
        of = "" if each in own else f" of {label(each.first.cell)}"
        return hours, (
            f"from {each.epochs:,} epoch{'s' if each.epochs != 1 else ''}{of} on "
            f"{machine(_latest(each))}, {epoch_s:,.0f} s to train for an epoch of "
            f"{TRAIN_IMAGES[column]:,} {DATASETS[column]} images"
        )
    return None


def _latest(each: Pool) -> Record:
    return max(each.records, key=lambda r: (r.created, r.name))


def _rate(each: Pool) -> float:
    """Images a second that training took in the middle one of the epochs; 0 where not told."""
    rate = _latest(each).details.get("images_per_s")
    if not each.epochs or not isinstance(rate, (int, float)) or not math.isfinite(rate):
        return 0.0
    return max(0.0, float(rate))
