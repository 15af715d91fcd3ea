"""Earlier measurements: what newer records of the same have replaced in the other tables."""

from bnnrun.records import Record
from bnnrun.report.content import Cell, Table
from bnnrun.report.machines import MACHINE, machine, where
from bnnrun.report.standing import measurement, newest
from bnnrun.report.timing import implementation, milliseconds
from bnnrun.report.workload import WORKLOAD, work
from bnnrun.roles import shown
from bnnrun.table import Column, Number, Parts


def earlier(records: list[Record]) -> Table:
    """A row for each record that stands in no other table, beside the one that replaced it."""
    standing = {measurement(record): record for record in newest(records)}
    names = {record.name for record in standing.values()}
    replaced = [record for record in records if record.name not in names]
    rows = [(record, standing[measurement(record)]) for record in replaced]
    return Table(
        name="earlier",
        title="Earlier measurements",
        columns=(
            Column("quantity"),
            Column("of", WORKLOAD),
            Column("competitor", "role variant remark"),
            Column("machine", MACHINE),
            Column("seed"),
            Column("earlier", "value unit"),
            Column("date"),
            Column("now", "value_now unit_now"),
            Column("date now"),
        ),
        rows=tuple(_row(*pair) for pair in sorted(rows, key=_in_order)),
        notes=(
            "Replaced by the newest record of the same settings, machine and competitor, which "
            "stands in the tables above.",
        ),
    )


def _in_order(pair: tuple[Record, Record]) -> tuple[object, ...]:
    """By work, machine, competitor and date; records of no time last."""
    record, now = pair
    order: tuple[object, ...] = ()
    if record.quantity.endswith("_time"):
        order = (*work(record).order, machine(record), *implementation(record).order)
    return not order, *order, now.quantity, now.name, record.created, record.name


def _row(record: Record, now: Record) -> tuple[Cell, ...]:
    competitor = Parts("", ())
    if record.quantity.endswith("_time"):
        timed, remark = implementation(record), str(record.details.get("remark", ""))
        competitor = Parts(shown(timed, remark), (timed.role.value, timed.variant, remark or None))
    return (
        Cell(record.quantity),
        Cell(_workload(record)),
        Cell(competitor),
        Cell(where(record)),
        Cell(Number(record.seed)),
        Cell(_value(record), f"earlier.{record.quantity}.{record.checksum[:8]}",
             records=(record.name,)),
        Cell(record.created[:10]),
        Cell(_value(now), records=(now.name,)),
        Cell(now.created[:10]),
    )  # fmt: skip


def _workload(record: Record) -> Parts:
    """The work of a time; else data set and experiment, or the packed file."""
    if record.quantity.endswith("_time"):
        return work(record).value
    details = record.details
    data = record.data.get("name") or details.get("trained", {}).get("dataset", "")
    file = str(details.get("sha256", ""))[:12]
    return Parts(", ".join(filter(None, (data, record.experiment, file))), (*[None] * 4, data))


def _value(record: Record) -> Parts:
    text = (
        milliseconds(record.value) if record.unit == "ms" else f"{record.value:.2f} {record.unit}"
    )
    return Parts(text, (record.value, record.unit))
