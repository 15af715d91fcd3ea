"""Which records stand in the tables: of the same settings, machine and competitor the newest."""

import json

from bnnrun.records import Record
from bnnrun.report.machines import machine
from bnnrun.report.pooling import alike
from bnnrun.report.workload import work


def newest(records: list[Record]) -> list[Record]:
    """Of the records, oldest first, the newest of each kind of measurement, oldest first."""
    newest_by_measurement: dict[str, Record] = {}
    for record in records:
        newest_by_measurement[measurement(record)] = record
    names = {record.name for record in newest_by_measurement.values()}
    return [record for record in records if record.name in names]


def measurement(record: Record) -> str:
    """What a record has in common with those that it replaces, or that replace it."""
    details = record.details
    if record.quantity.endswith("_time"):
        timed_work = work(record)
        identity = [
            timed_work.workload, timed_work.size, timed_work.network, machine(record),
            details["role"], details["variant"],
        ]  # fmt: skip
    elif record.quantity == "packed_test_error":
        identity = [details["sha256"], details["kernel"], details["first"], machine(record)]
    elif record.quantity == "unique_filters":
        identity = [details["sha256"]]
    else:
        # A seed gives the same run on every machine, but for rounding: it counts once.
        identity = [alike(record), record.seed]
    return json.dumps([record.quantity, *identity])
