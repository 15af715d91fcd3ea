"""All tables of a report, from records and experiments."""

from collections.abc import Iterable
from pathlib import Path

from bnnrun.data import describe
from bnnrun.records import Record
from bnnrun.report import figure3, more_bits, networks, outcomes, overview, speedup, table1
from bnnrun.report.content import Table
from bnnrun.report.devices import devices
from bnnrun.report.earlier import earlier
from bnnrun.report.experiments import Experiment
from bnnrun.report.standing import newest
from bnnrun.report.steps import steps
from bnnrun.report.timing import timed_runs, times


def tables(
    records: list[Record],
    experiments: list[Experiment],
    damaged: list[str],
    models: Iterable[Path] = (),
) -> list[Table]:
    """In the order in which a reader wants them; a table without rows is left out.

    The newest records stand in all of them but the last, which has the others.

    Args:
        records: oldest first
        damaged: a line for each record that was left out, which the summary repeats
        models:  the packed files that are published with the records
    """
    standing, timed = newest(records), timed_runs(records)
    cells = table1.Cells(standing, experiments)
    specs = {e.config.dataset.name: describe(e.config.dataset) for e in experiments}
    ablations, left = overview.ablations(cells, experiments, more_bits.shown(standing))
    all_tables = [
        outcomes.summary(cells, experiments, damaged),
        table1.table1(cells),
        table1.detail(cells),
        table1.protocols(cells),
        overview.reruns(cells),
        figure3.table(figure3.kernels(timed)),
        speedup.table(timed),
        steps(timed),
        networks.filters(standing),
        networks.table2(),
        networks.table3(),
        networks.energy(experiments),
        networks.packed(standing),
        more_bits.table(standing, specs),
        devices(standing, models),
        ablations,
        overview.others(left),
        overview.deviations(experiments),
        times(timed),
        earlier(records),
    ]
    return [table for table in all_tables if table.rows]
