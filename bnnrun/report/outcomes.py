"""The summary: what matched the paper, what did not, how far and why; what all would cost."""

import math

from bnnrun.paper import DATASETS, EPOCHS, TRAIN_IMAGES
from bnnrun.records import Record
from bnnrun.report.content import Cell, Table, verdict_cell
from bnnrun.report.experiments import Experiment
from bnnrun.report.machines import machine
from bnnrun.report.overview import all_departures
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
    distance,
    printed_value,
)
from bnnrun.report.table1 import Cells, label, labelled, number
from bnnrun.table import Column, Number, Parts
from bnnrun.table import number as value

ORDER = (WITHIN_NOISE, BETTER, WORSE, REDUCED, DIFFERENT_DATA, NOT_RUN)
GROUPS = {
    WITHIN_NOISE: "matched", BETTER: "did not match, better", WORSE: "did not match, worse",
    REDUCED: "run with fewer epochs", DIFFERENT_DATA: "run on different data", NOT_RUN: NOT_RUN,
}  # fmt: skip


def summary(cells: Cells, experiments: list[Experiment], damaged: list[str]) -> Table:
    """What matched, what did not, how far and why, what was not run, what the paper's schedule
    would cost.
    """
    protocol = {e.cell: len(all_departures(e)) for e in experiments}
    said = {cell: cells.verdict(cell) for cell in cells}
    group = {cell: next(name for name in ORDER if said[cell].startswith(name)) for cell in cells}
    hours = {cell: cost_h(cells, cell) for cell in cells}
    rows = []
    for cell in sorted(cells, key=lambda cell: ORDER.index(group[cell])):
        lead, estimate = cells.lead(cell), hours[cell]
        ours = lead.measured_n if lead else ""
        rows.append(
            (
                Cell(GROUPS[group[cell]]),
                Cell(labelled(cell)),
                Cell(printed_value(number(cell))),
                Cell(ours, cell, records=lead.names if lead else ()),
                *_distance(lead, cell),
                verdict_cell(said[cell], cell),
                Cell(_why(lead, cell, protocol[cell]) if lead else ""),
                Cell("" if estimate is None else Number(estimate[0], "{:,.0f}"),
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
        columns=(
            Column("outcome"),
            Column("cell", "method dataset"),
            Column("paper %", "paper_pct paper_deviation_pct"),
            Column("ours %", "error_pct deviation_pct n"),
            Column("points", "difference_points"),
            Column("standard deviations"),
            Column("verdict"),
            Column("differs in", "epochs of_epochs different_data protocol_differences"),
            Column("hours of the whole schedule", "whole_schedule_h", notes="notes"),
        ),
        rows=tuple(rows),
        notes=tuple(lines),
    )  # fmt: skip


def _distance(lead: Pool | None, cell: str) -> tuple[Cell, Cell]:
    """How far ours is from the paper's: in points, in standard deviations."""
    if lead is None:
        return Cell(""), Cell("")
    points, deviations = distance(lead, number(cell))
    return Cell(Number(points, "{:+.2f}")), Cell(value(deviations, "{:+.1f}"))


def _why(lead: Pool, cell: str, protocol: int) -> Parts:
    """In what the runs differ: 'budget (20 of 1,000 epochs), protocol (2 differences)'."""
    reasons = []
    full_schedule = EPOCHS[number(cell).column]
    if lead.epochs is None:
        reasons.append("budget (epochs not recorded)")
    elif lead.epochs < full_schedule:
        reasons.append(f"budget ({lead.epochs:,} of {full_schedule:,} epochs)")
    other_data = bool(data_notes(lead.first))
    if other_data:
        reasons.append("data")
    if protocol:
        reasons.append(f"protocol ({protocol} difference{'s' if protocol > 1 else ''})")
    return Parts(", ".join(reasons), (lead.epochs, full_schedule, other_data, protocol))


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
        other_cell = "" if each in own else f" of {label(each.first.cell)}"
        return hours, (
            f"from {each.epochs:,} epoch{'s' if each.epochs != 1 else ''}{other_cell} on "
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
