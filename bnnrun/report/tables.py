"""All tables of a report, from records and experiments."""

from bnnrun.records import Record
from bnnrun.report import networks, outcomes, overview, ratios, table1
from bnnrun.report.content import Table
from bnnrun.report.experiments import Experiment
from bnnrun.report.steps import steps
from bnnrun.report.timing import timed_runs, times


def tables(records: list[Record], experiments: list[Experiment], damaged: list[str]) -> list[Table]:
    """In the order in which a reader wants them; a table without rows is left out.

    Args:
        records: oldest first
        damaged: a line for each record that was left out, which the summary repeats
    """
    cells, timed = table1.Cells(records, experiments), timed_runs(records)
    ablations, left = overview.ablations(cells, experiments)
    found = [
        outcomes.summary(cells, experiments, damaged),
        table1.table1(cells),
        table1.detail(cells),
        table1.protocols(cells),
        overview.reruns(cells),
        ratios.figure3(timed),
        ratios.speedup(timed),
        steps(timed),
        networks.filters(records),
        networks.table2(),
        networks.table3(),
        networks.energy(experiments),
        networks.packed(records),
        ablations,
        overview.others(left),
        overview.deviations(experiments),
        times(timed),
    ]
    return [table for table in found if table.rows]
